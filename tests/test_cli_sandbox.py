"""The command `sandbox` prints accounts that work where they are pasted."""

from __future__ import annotations

import signal
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from processes import ENVIRONMENT, call, command

from payout_engine import providers
from payout_engine.app.settings import load_settings, resolve_account
from payout_engine.cli.sandbox import account_written
from payout_engine.ports.registration import Registration

HERE = "http://127.0.0.1:8700"
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
VALUES = st.recursive(
    TEXTS | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e15, 1e15),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize("name", providers.discover())
async def test_what_is_printed_is_an_account_that_connects(name: str, tmp_path: Path) -> None:
    """Read back as TOML, resolved with its secrets, and connected in each of the provider's directions."""
    registration = providers.get(name)
    config = tmp_path / "payouts.toml"
    config.write_text(account_written(registration, HERE), encoding="utf-8")

    account = resolve_account(name, load_settings(config).accounts[name], registration.secrets)

    assert (account.base_url, account.secrets) == (HERE, registration.sandbox_secrets)
    assert account.options == registration.sandbox_options
    for face in registration.faces.values():
        await face.connect(account).aclose()


@given(st.dictionaries(TEXTS, VALUES, max_size=4))
def test_whatever_a_sandbox_needs_can_be_written(options: dict[str, Any]) -> None:
    """Numbers, texts, truths, lists and tables, whatever stands in them, come back as they were."""
    base = providers.get("senfenico")
    made = msgspec.structs.replace(base, name="a name", sandbox_secrets={}, sandbox_options=options)

    read = tomllib.loads(account_written(made, HERE))["accounts"]["a name"]

    assert read == {"provider": "a name", "base_url": HERE, **options}


def test_the_command_prints_one_account_for_each_provider(tmp_path: Path) -> None:
    """As a process: what comes out is a configuration, and the balances behind it can be read."""
    with subprocess.Popen(
        command("sandbox", "--port", "0"), cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE
    ) as serving:
        assert serving.stdout is not None
        wanted = set(providers.discover())
        text = ""
        while set(_accounts(text)) != wanted or not text.endswith("\n\n"):
            text += serving.stdout.readline().decode()
        (tmp_path / "payouts.toml").write_text(text, encoding="utf-8")
        read = call(tmp_path, "balance")
        serving.send_signal(signal.SIGINT)
        serving.wait(timeout=30)

    assert read.returncode == 0, read.stderr
    assert b"orange_bf" in read.stdout
    for name, written in _accounts(text).items():
        registration: Registration = providers.get(name)
        assert written.items() >= {**registration.sandbox_secrets, **registration.sandbox_options}.items()


def _accounts(text: str) -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads(text).get("accounts", {})
    return found
