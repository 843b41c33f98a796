"""Unipesa's signature: what the printed PHP would sign, and nothing else is verified."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from payout_engine.providers.unipesa import verify_callback
from payout_engine.providers.unipesa.signature import DEPTH_MAX, php_text, sign

SECRET = (
    "cf11635572c1e8d77297207152dc0791ad91f22b32d23c758ce3ba2637202ad8f7290ba41f2243cccf32edde1dfb8bf0f5dea62525309e293b3"
    "adb2c76eed6a5"
)
"""The document's own."""

SAMPLE = {
    "merchant_id": "fffed61be9780b97c5e4c65e4e07bb6b",
    "provider_id": 10,
    "client_id": "254000000000",
    "country": "KE",
    "order_id": "order_3444298767545",
    "amount": 1000,
    "currency": "KES",
    "callback_url": "https://my.callback.url",
}
SAMPLE_SIGNATURE = (
    "a724c9ebe2b15fca52cf5ad427164db7acef0f7c3f4ea1b3c8a3d07706ac4c2e6d0125a452d86e220f5c21686f6239434a490279e61641d33de5"
    "fb213e4ef8f2"
)
"""What PHP 8.2 makes of the document's sample with the document's secret."""

BANK = {
    "merchant_id": "e0fecd91fcb24f348048193b3fb34875ba3722b4",
    "order_id": "0900000001",
    "customer_id": "16280954971628095497",
    "amount": "100.00",
    "currency": "NGN",
    "provider_id": 5026,
    "extra": {"customer_name": "Name Lastname", "customer_email": "Name@domen.com", "bank_code": "000001"},
    "signature": "never a part of itself",
}
BANK_SIGNATURE = (
    "e3cc36a3684066ae6202b03dc402c0e24187a1233c0ef059cdc19f2e364e2410587e425054fa6102a425dabf9b8db4dfb1de6d99e86b99a345c1"
    "b0a6c8d60dcc"
)
"""Of the nested sample, made with another language's library from the text written out by hand, as the next two."""

CALLBACK = (
    b'{"merchant_id": "e0fecd91fcb24f348048193b3fb34875ba3722b4", "operation_type": 17, "customer_id": "0900000001",'
    b' "amount": 100, "order_id": "16280954971628095497", "transaction_id": "1234567", "transaction_ref": "QR555RQ",'
    b' "status": 2, "provider_id": 14, "destination_id": "", "result": {"code": 0, "message": "OK"}}'
)
"""The document's callback, which states whole numbers."""

CASTS = (
    b'{"a": ["x", "y"], "b": true, "c": false, "d": null, "e": 1e20, "f": 100.50, "g": "\\u00c9mile", "h": {}, "i": []}'
)


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (SAMPLE, SAMPLE_SIGNATURE),
        (BANK, BANK_SIGNATURE),
        (
            msgspec.json.decode(CALLBACK),
            (
                "9a229b2f9c4d73dc7dabf6bf9566150b2b0211be4da72e4bed24fd5d6978efb358ee6da12bcd9e24c871d965c57556f4213fcaefc0ca"
                "e6d559d072aa82bcffbf"
            ),
        ),
        (
            msgspec.json.decode(CASTS),
            (
                "50db94c422e8f8a1794e81f9a5f0f5c8bafb6bc90a09798178ca0622559449e53fdc674dc461f222244d67bc5cc0fbfe33396e1b6ad2"
                "7f8e62ef29935a24e421"
            ),
        ),
    ],
    ids=["sample", "nested", "callback", "casts"],
)
def test_the_vectors(document: dict[str, Any], expected: str) -> None:
    """Signed and verified as PHP does, the misspelt variable of the printed function mended."""
    assert sign(SECRET, document) == expected
    assert verify_callback(SECRET, {**document, "signature": expected})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("", ""),
        ("1100", "1100"),
        (100, "100"),
        (-1, "-1"),
        (100.0, "100"),
        (100.5, "100.5"),
        (0.1 + 0.2, "0.3"),
        (1e13, "10000000000000"),
        (1e14, "1.0E+14"),
        (1e20, "1.0E+20"),
        (1.5e25, "1.5E+25"),
        (0.0001, "0.0001"),
        (0.00001, "1.0E-5"),
        (-0.0, "-0"),
        (123456789012345.678, "1.2345678901235E+14"),
        (2**63 - 1, "9223372036854775807"),
        (2**63, "9.2233720368548E+18"),
        (-(2**63), "-9223372036854775808"),
        (-(2**63) - 1, "-9.2233720368548E+18"),
        (True, "1"),
        (False, ""),
        (None, ""),
    ],
)
def test_values_are_written_as_php_writes_them(value: object, text: str) -> None:
    """Where Python's own words differ (100.0, True, None, 1e+20), a genuine callback would be turned away."""
    assert php_text(value) == text


def test_the_order_of_the_keys_counts() -> None:
    """What was signed is what was received, in the order received."""
    turned = dict(reversed(SAMPLE.items()))
    assert not verify_callback(SECRET, {**turned, "signature": SAMPLE_SIGNATURE})


def test_each_change_of_a_callback_is_noticed() -> None:
    """Another value, a key more or less, another secret, a signature cut or in capitals: all are forged."""
    genuine = {**SAMPLE, "signature": SAMPLE_SIGNATURE}
    forged: list[Any] = [{**genuine, key: "other"} for key in genuine]
    forged += [{name: value for name, value in genuine.items() if name != key} for key in genuine]
    forged += [{**genuine, "extra": {"status": "2"}}, {**genuine, "more": 1}]
    forged += [{**genuine, "signature": wrong} for wrong in (SAMPLE_SIGNATURE[:-1], SAMPLE_SIGNATURE.upper(), "", "é")]
    forged += [
        {**genuine, "signature": wrong} for wrong in (None, True, 0, [SAMPLE_SIGNATURE], {"0": SAMPLE_SIGNATURE})
    ]

    assert verify_callback(SECRET, genuine)
    assert not any(verify_callback(SECRET, one) for one in forged)
    assert not verify_callback(SECRET + "0", genuine)


def test_an_empty_secret_verifies_nothing() -> None:
    """An account without a secret has no callbacks, also not those that are signed with nothing."""
    assert not verify_callback("", {**SAMPLE, "signature": sign("", SAMPLE)})


def test_what_is_nested_as_deep_as_php_goes_is_verified_and_no_deeper() -> None:
    """The printed function gives up at its sixteenth level, and so nobody has signed such a document."""

    def nested(depth: int) -> dict[str, Any]:
        return {"a": nested(depth - 1)} if depth > 1 else {"a": "b"}

    assert DEPTH_MAX == 16
    deep = nested(DEPTH_MAX)
    assert verify_callback(SECRET, {**deep, "signature": sign(SECRET, deep)})
    with pytest.raises(ValueError, match="deep"):
        sign(SECRET, nested(DEPTH_MAX + 1))
    assert not verify_callback(SECRET, {**nested(DEPTH_MAX + 1), "signature": SAMPLE_SIGNATURE})


def test_what_cannot_be_written_is_not_verified() -> None:
    """A number without end, and half of a character."""
    for value in (10**400, "\ud800"):
        assert verify_callback(SECRET, {"a": value, "signature": SAMPLE_SIGNATURE}) is False


def test_a_document_called_signature_is_signed() -> None:
    """Only a text of that name is left out, at every level, as the printed function does it."""
    assert sign(SECRET, {"a": "b", "signature": {"c": "d"}}) == sign(SECRET, {"a": "b", "signature.c": "d"})
    assert sign(SECRET, {"a": {"b": "c", "signature": "d"}}) == sign(SECRET, {"a": {"b": "c"}})


def test_two_documents_may_share_a_signature() -> None:
    """Keys and values run into one another, so a signature is no name for a document."""
    assert sign(SECRET, {"a": "bc"}) == sign(SECRET, {"ab": "c"})


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(VALUES, st.text())
def test_nothing_that_somebody_sends_raises(parsed: object, signature: str) -> None:
    """A callback is verified or it is not."""
    assert verify_callback(SECRET, parsed) is False
    if isinstance(parsed, dict):
        assert verify_callback(SECRET, {**parsed, "signature": signature}) is False
