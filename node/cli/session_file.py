"""The token of whoever has signed in with a folder of credentials: a file in it, mode 0600."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from node.security.credentials import Credentials
from node.security.errors import KeyFileError
from node.security.key_files import read_secret, write_secret

__all__ = ["KeptSession", "SessionFile"]

_NAME: Final = "session.json"
_RENEWED_BEFORE_MS: Final = 10 * 60_000


@dataclass(frozen=True, slots=True)
class KeptSession:
    """A session as the next command finds it."""

    token: str = field(repr=False)
    session_id: str
    ends_ms: int

    def is_to_renew(self, now_ms: int) -> bool:
        """Whether the token is a while old and still good."""
        return self.ends_ms - _RENEWED_BEFORE_MS <= now_ms < self.ends_ms


class SessionFile:
    """Beside the key of the credentials, and as secret."""

    def __init__(self, credentials: Credentials) -> None:
        self._path: Path = credentials.tls.private_key.with_name(_NAME)

    def load(self) -> KeptSession | None:
        """What is kept; None: nobody has signed in, or the file is of another release.

        Raises:
            KeyFileExposedError: Others can read it.
        """
        if not self._path.exists():
            return None
        try:
            said = json.loads(read_secret(self._path))
            return KeptSession(str(said["token"]), str(said["session_id"]), int(said["ends_ms"]))
        except (ValueError, KeyError, TypeError):
            return None

    def save(self, session: KeptSession) -> None:
        """Keep a session in place of the one before."""
        fresh = self._path.with_name(f".{_NAME}.new")
        fresh.unlink(missing_ok=True)
        write_secret(fresh, json.dumps(asdict(session)).encode())
        fresh.replace(self._path)

    def remove(self) -> None:
        """Forget it."""
        with contextlib.suppress(FileNotFoundError, KeyFileError):
            self._path.unlink()
