"""The first stage: a file becomes a validated run in the journal, before any money moves.

In the order in which a line meets them: `intake` drives them all, block by block. `columns`: which column means what.
`validate`: each line becomes a payout, or is refused with the first problem that matters;
`plain` does the same for plain lines, a column at a time. `route`: which account and
wallet pay it. `chunk`: payouts of one lane are packed into chunks. `duplicates`: lines that repeat earlier ones are
held, or warned about. `forecast`: what paying the run will need.
"""
