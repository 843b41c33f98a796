"""The right to send for an account, or to judge a content: a lock on a file beside the journal."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from hashlib import blake2b
from pathlib import Path

from payout_engine.domain.errors import Holder, JournalFullError
from payout_engine.journal.file_locks import locked


@contextmanager
def lease(journal: Path, name: str, holder: Holder) -> Iterator[None]:
    """Hold a lease; see `Journal.lease`.

    Raises:
        JournalBusyError: somebody else holds it; the message names the process.
        JournalFullError: the lock file cannot be made.
    """
    # Resolved, so that a link to the journal leads to the same lock; hashed, so that no two names share one.
    real, plain = journal.resolve(), re.sub(r"[^A-Za-z0-9_-]", "_", name)[:40]
    mark = "" if plain == name else f"-{blake2b(name.encode(), digest_size=4).hexdigest()}"
    path = real.with_name(f"{real.name}.{plain}{mark}.lock")
    with ExitStack() as held:
        try:
            held.enter_context(locked(path, name, holder))
        except OSError as error:
            raise JournalFullError(
                f"The lock {path} cannot be made ({error.strerror}). Make the journal's folder writable and run the "
                "same command again."
            ) from None
        yield
