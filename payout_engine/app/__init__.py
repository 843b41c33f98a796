"""Where the rooms meet: the application alone knows the journal, the providers, the sources, the sinks and the stages.

In the order in which a run meets its modules:

`engine`: the facade, which says what each verb promises. `settings`: payouts.toml. `workspace`: what all verbs work
with. `accounts`: the configured accounts and their connections. `submit`: a file becomes a recorded run; `retry`: the
unpaid lines of an earlier run as such a file; `money_limits`: what a run and a day may pay. `pay`: what comes before a
run is paid, and its approval; `locks`: one payer at a time; `remembered` and `other_journals`: no older copy, no second
journal; `clearing`: what providers already have. `payment_stream`: the outcomes, for whoever iterates. `controls`:
pause, cancel, resume; `decisions`: a person's word on a line; `recall`: taking back what was paid. `serve`: what
providers call to say; `sandboxes`: theirs, served.
"""
