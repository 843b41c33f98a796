"""How calls to Jemeni are signed: three ways, since its documents describe three. Pure.

The document's introduction, its endpoints, and its present pages contradict one another (NOTES.md, section 2), and only
Jemeni can say which one a merchant's account speaks. So the way has a name, and is an option of the account.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum

import msgspec


class Scheme(StrEnum):
    """Which description of the signature is followed."""

    INTRODUCTION = "introduction"  # section "Authentication": a bearer token, plain SHA-512, seconds since 1970
    ENDPOINTS = "endpoints"  # the headers of each endpoint: `auth-...`, the same hash, date and time
    HMAC = "hmac"  # the present pages: the same headers, HMAC, seconds since 1970, `sandbox: true`


class Keys(msgspec.Struct, frozen=True):
    """A merchant's credentials: what names it, what signs, and what admits it. Its repr shows none."""

    public_key: str
    secret_key: str
    token: str

    def __repr__(self) -> str:
        return "Keys()"


class Signable(msgspec.Struct, frozen=True):
    """What is signed of a call: method, whole address with query, and body as sent."""

    method: str
    url: str
    body: bytes = b""

    def __repr__(self) -> str:
        return f"Signable({self.method!r}, {len(self.body)} bytes)"


def signature(scheme: Scheme, keys: Keys, call: Signable, timestamp: str) -> str:
    """Return the signature in hex."""
    if scheme is Scheme.HMAC:
        # Of a POST the present pages sign the address without what stands behind the question mark.
        url = call.url if call.method == "GET" else call.url.partition("?")[0]
        head = f"{keys.secret_key}{keys.public_key}{call.method}{url}"
        return hmac.new(keys.secret_key.encode(), head.encode() + call.body + timestamp.encode(), "sha512").hexdigest()
    head = "+".join([keys.secret_key, keys.token, call.method, call.url, ""])
    return hashlib.sha512(head.encode() + call.body + f"+{timestamp}".encode()).hexdigest()


def written(scheme: Scheme, at: float) -> str:
    """Return a time as a scheme writes it. The zone of the written form is not said; UTC is what `seconds` count in."""
    if scheme is Scheme.ENDPOINTS:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")
    return str(int(at))


def signed_headers(scheme: Scheme, keys: Keys, call: Signable, at: float, *, sandbox: bool) -> Mapping[str, str]:
    """Return the headers that authenticate a call made at a time in seconds since 1970.

    Args:
        scheme: which description is followed.
        keys: the merchant's credentials.
        call: what is signed.
        at: now.
        sandbox: whether the call goes to the sandbox, which the present pages want said.
    """
    timestamp = written(scheme, at)
    signed = signature(scheme, keys, call, timestamp)
    if scheme is Scheme.INTRODUCTION:
        return {"Authorization": f"Bearer {keys.token}", "auth-signature": signed, "Timestamp": timestamp}
    headers = {
        "auth-apiKey": keys.public_key,
        "auth-timestamp": timestamp,
        "auth-token": keys.token,
        "auth-signature": signed,
    }
    return {**headers, "sandbox": "true"} if sandbox and scheme is Scheme.HMAC else headers
