"""Bulk mobile-money payouts that are never paid twice and never lost.

async with Engine.open("payouts.toml") as engine:
    run = await engine.submit("salaries.csv")
    async for outcome in engine.pay(run):
        ...
"""

from payout_engine.app.engine import Engine
from payout_engine.app.payment_stream import PaymentStream
from payout_engine.app.settings import Settings, load_settings
from payout_engine.app.submit import Submission
from payout_engine.domain.ending import Ending
from payout_engine.domain.errors import (
    Brake,
    ConfigError,
    DecisionError,
    InputError,
    JournalError,
    PayoutEngineError,
    SinkError,
    UnansweredError,
    UserError,
)
from payout_engine.domain.model import Choice, Decision, Outcome, Payout, Run
from payout_engine.domain.proof import Audit
from payout_engine.domain.states import State
from payout_engine.results.summary import Exit, Summary, summarize

__version__ = "0.1.0"

__all__ = [
    "Audit",
    "Brake",
    "Choice",
    "ConfigError",
    "Decision",
    "DecisionError",
    "Ending",
    "Engine",
    "Exit",
    "InputError",
    "JournalError",
    "Outcome",
    "PaymentStream",
    "Payout",
    "PayoutEngineError",
    "Run",
    "Settings",
    "SinkError",
    "State",
    "Submission",
    "Summary",
    "UnansweredError",
    "UserError",
    "load_settings",
    "summarize",
]
