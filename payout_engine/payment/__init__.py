"""The second stage: an approved run is sent, and followed until each payout has its verdict.

In the order in which a run meets them: `first_look`: what the provider already has, before anything is sent that may
have been sent before. `run`: the paying of one run, with a task for each account; `context`: what these share.
`rate_limiter`: the documented rate, full and never over it. `dispatch`: the durable intent, and right below it the one
line where money leaves; `first_send` and `resend` say why it is sent, for the first time, or once more under the same
key to ask. `stop_rules`: too many failures, and the canary. `poll`: what became of open payouts; `callbacks`: of those
that the provider has called about; `paid`: whether what was paid still is.
"""
