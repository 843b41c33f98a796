"""A judged file, between judging and paying: what `Engine.submit`, `plan` and `retry` return."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from payout_engine.domain.model import Run
from payout_engine.intake.forecast import Forecast
from payout_engine.intake.intake import IntakeFindings


class Submission(msgspec.Struct, frozen=True):
    """A judged file.

    Attributes:
        run: the recorded run; of `Engine.plan`, a run that was recorded nowhere.
        findings: what intake found; None when the file was submitted before and its run goes on.
        forecast: what paying will need; None when the file was submitted before.
        over_limits: the money limits that forbid it, in sentences; always empty for what `submit` returns.
        left_out: of a retry, how many lines another retry has paid or has in flight, by its id.
    """

    run: Run
    findings: IntakeFindings | None = None
    forecast: Forecast | None = None
    over_limits: Sequence[str] = ()
    left_out: Mapping[str, int] = {}

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self.run.run_id

    @property
    def known(self) -> bool:
        """True when this content was approved before: paying again only finishes what was begun."""
        return self.findings is None
