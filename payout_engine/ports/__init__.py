"""The promises between the rooms: protocols without code, so that a stage knows no journal and no provider by name.

In the order in which a run meets them: `files`: a source of lines, and a sink of results. `journal`: the durable
memory, one protocol for each of its six uses. `provider`: the two verbs `send` and `look_up`, and the traits that
change what the engine does; `callbacks`: what it calls to say; `registration`: how it makes itself known. `observer`:
what those who watch are told. The suites in `payout_engine.testing` say whether an implementation keeps a promise.
"""
