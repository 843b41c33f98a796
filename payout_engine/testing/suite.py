"""What all conformance suites have in common: nobody strikes out a promise in silence.

A suite is a class of tests. Whoever implements a port subclasses it, gives it its fixture, and adds tests; replacing
one of the suite's own tests would hide a broken promise, so that fails too, unless the replacement is marked `xfail`
and thereby says in the report which promise is not kept and why.
"""

from __future__ import annotations


class Suite:
    """The base of the suites."""

    def test_no_promise_is_struck_out(self) -> None:
        """Every test of the suite runs as it was written, or is openly marked as expected to fail."""
        lineage = type(self).__mro__
        shipped = [kind for kind in lineage if kind.__module__.startswith("payout_engine.testing")]
        promises = {name for kind in shipped for name in vars(kind) if name.startswith("test_")}
        for kind in lineage:
            if kind not in shipped:
                replaced = promises & vars(kind).keys()
                silent = [name for name in replaced if not _expected_to_fail(vars(kind)[name])]
                assert not silent, f"{kind.__name__} replaces {silent}: mark them xfail with a reason"


def _expected_to_fail(test: object) -> bool:
    return any(mark.name == "xfail" for mark in getattr(test, "pytestmark", ()))
