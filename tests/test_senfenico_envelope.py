"""What surrounds an answer of Senfenico: each kind of no, with the code people meet, its brake, and clean words."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from payout_engine.domain.errors import AmbiguousError, Brake, ProviderError, RefusedError
from payout_engine.providers._http import TEXT_CHARS_MAX, HttpAnswer
from payout_engine.providers.senfenico.envelope import (
    DOUBTS,
    INVALID_KEY,
    REFUSALS,
    SINGLE_REFUSALS,
    RefusedOrder,
    read_envelope,
    scrubbed,
)


def error_of(status: int = 400, refusals: Any = REFUSALS, **envelope: Any) -> ProviderError:
    """Return what an answer with this envelope raises; it asks us to wait for 7 seconds."""
    with pytest.raises(ProviderError) as caught:
        read_envelope(HttpAnswer(status, orjson.dumps({"status": False, **envelope}), 7.0), refusals)
    return caught.value


@pytest.mark.parametrize("status", [200, 400, 401, 403, 429])
@pytest.mark.parametrize("code", sorted(DOUBTS))
def test_a_code_that_proves_nothing_is_a_doubt(status: int, code: str) -> None:
    """Under any HTTP status but 401 it carries its own code and brake; people read the provider's words."""
    error = error_of(status, error_code=code, message="Their words.")
    assert type(error) is AmbiguousError
    if status == 401:
        assert (error.reason, error.brake) == ("api_key_in_doubt", Brake.CREDENTIALS)
        return
    assert (error.reason, error.brake) == (code.lower(), DOUBTS[code])
    assert str(error).startswith(f"Senfenico answered: {code}: Their words.")
    assert ("looked for" in str(error)) is (DOUBTS[code] is not None)


def test_the_printed_refusals_free_a_call() -> None:
    """Too fast says how long to wait, too many says stop; the funds only where a single transfer was created."""
    fast = error_of(error_code="RATE_LIMIT_EXCEEDED", message="Slowly.")
    many = error_of(error_code="BATCH_SIZE_LIMIT_EXCEEDED")
    poor = error_of(error_code="INSUFFICIENT_FUNDS", refusals=SINGLE_REFUSALS)
    assert isinstance(fast, RefusedError) and isinstance(many, RefusedError) and isinstance(poor, RefusedError)
    assert (fast.reason, fast.too_fast, fast.brake) == ("rate_limit_exceeded", True, None)
    assert fast.retry_after_seconds == 7.0
    assert str(fast) == "Senfenico refused the call: RATE_LIMIT_EXCEEDED: Slowly."
    assert (many.reason, many.too_fast, many.brake) == ("batch_size_limit_exceeded", False, Brake.LIMIT)
    assert many.retry_after_seconds is None
    assert (poor.reason, poor.too_fast, poor.brake) == ("insufficient_funds", False, Brake.FUNDS)
    assert not (fast.final or many.final or poor.final)


@pytest.mark.parametrize("status", [200, 400, 401, 403])
def test_only_the_printed_words_refuse_the_key(status: int) -> None:
    """Nothing more and nothing less, but for spaces around it; anything near it is a doubt that stops the account."""
    refused = error_of(status, message=f" {INVALID_KEY} ")
    assert isinstance(refused, RefusedError)
    assert (refused.reason, refused.brake, refused.too_fast) == ("invalid_api_key", Brake.CREDENTIALS, False)
    near: list[dict[str, Any]] = [
        {"message": INVALID_KEY.upper()},
        {"message": f"{INVALID_KEY}."},
        {"message": "Your API KEY has expired"},
        {"message": INVALID_KEY, "failed_transfers": []},
    ]
    for envelope in near:
        doubt = error_of(status, **envelope)
        assert type(doubt) is AmbiguousError
        assert (doubt.reason, doubt.brake) == ("api_key_in_doubt", Brake.CREDENTIALS)
    coded = error_of(400, message=INVALID_KEY, error_code="NEW_CODE")
    assert (type(coded), coded.reason, coded.brake) == (AmbiguousError, "code_not_documented", None)


def test_whatever_else_is_no_yes_is_a_doubt() -> None:
    """A no without a code, a yes with one, a server that failed, and what is no answer at all."""
    other = error_of(message="No.")
    assert (type(other), other.reason, other.brake) == (AmbiguousError, "refusal_not_documented", None)
    assert str(other) == "Senfenico answered: No."
    with pytest.raises(AmbiguousError, match=r"X: Yes\.") as both:
        read_envelope(HttpAnswer(200, b'{"status": true, "error_code": "X", "message": "Yes."}'))
    assert both.value.reason == "answer_disagrees"
    for status in (500, 503):
        failed = error_of(status, error_code="RATE_LIMIT_EXCEEDED")
        assert (type(failed), failed.reason) == (AmbiguousError, f"http_{status}")
    for body in (b"", b"<html>", b"[]", b'{"status": "yes"}', b"\xff", b"[" * 100_000):
        with pytest.raises(AmbiguousError) as caught:
            read_envelope(HttpAnswer(200, body))
        assert (caught.value.reason, caught.value.brake) == ("answer_unreadable", None)
        with pytest.raises(AmbiguousError) as caught:
            read_envelope(HttpAnswer(401, body))
        assert (caught.value.reason, caught.value.brake) == ("api_key_in_doubt", Brake.CREDENTIALS)
    assert read_envelope(HttpAnswer(499, b'{"status": true}')).status


def test_the_words_of_an_answer_are_clean() -> None:
    """No key, no phone, no line end, and no more than is useful; a refused order shows only its key."""
    assert scrubbed("key sk_live_ABC-1_x of\n+22670000001\x00 is\u202e bad") == "key sk_live_*** of +2267*****01 is bad"
    assert len(scrubbed("x" * 1000)) == TEXT_CHARS_MAX
    assert repr(RefusedOrder(recipient_phone="70000001", ext_id="token-1-0")) == "RefusedOrder('token-1-0')"
