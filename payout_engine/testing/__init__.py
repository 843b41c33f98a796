"""The suites by which anybody can tell whether a provider, a journal or a sink of their own keeps its promises.

Begin with `providers`, `journals` or `sinks`: subclass the suite, say how yours is made, and run pytest. Behind them
are the tests by subject, in the order of a payout. Of a provider: `provider_shape`, `provider_truth`,
`provider_answers`, `provider_faults`, `provider_manners`, over a scene (`provider_scene`, `provider_relay`). Of a
journal: `journal_intake`, `journal_duplicates`, `journal_lately`, `journal_going_on`, `journal_payment`,
`journal_resends`, `journal_callbacks`, `journal_controls`, `journal_people`, with `journal_lines` to write by. `suite`
keeps any of these tests from being overridden unseen.
"""
