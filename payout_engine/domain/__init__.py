"""The words: what the engine speaks of, and the rules that need nothing else. No I/O, and nothing of ours below.

Begin with these: `model`: payouts, chunks, dispatches, receipts, outcomes, runs. `states`: the states of a payout and
the arrows between them. `facts`: what the engine decides by and must remember. `errors`: every error that is raised on
purpose, by what may have happened to the money.

Then, as they are needed: `limits`: every bound with its reason. `money`, `countries`, `references`, `cells`: amounts,
phone numbers, references and cells as people write them. `rejections`: every reason of our own rules, with its
sentence. `ending`: how paying ended; `proof`: what `verify` returns. `clock`: the clocks, so that a simulation can
replace them.
"""
