"""The last stage: what became of each line, for people and for programs. It reads the journal and moves nothing.

In the order in which they are written: `event_log`: `events.jsonl`, every outcome as it happens, while paying goes on.
`files`: the results folder, each file whole or not at all. `summary`: counts, amounts and the exit code. What fails
here is told and can be written again; it never stops money.
"""
