"""The command `fenhe` run to its end, in a process forked as nodes are (see nursery)."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import Any

from tests.services.nursery import forked

__all__ = ["fenhe"]


def fenhe(*words: Any, given: str = "", seconds: float = 120.0) -> subprocess.CompletedProcess[str]:
    """Exit code and what it printed. Raises subprocess.TimeoutExpired once it was killed."""
    texts = [str(word) for word in words]
    with tempfile.TemporaryDirectory(prefix="fenhe-command-") as folder:
        files = [Path(folder) / name for name in ("given", "printed", "said")]
        files[0].write_text(given, encoding="utf-8")
        process = forked(texts, files[2], given=files[0], printed=files[1])
        try:
            code = process.wait(seconds)
        finally:
            process.kill()
        printed, said = (file.read_text(encoding="utf-8") for file in files[1:])
    return subprocess.CompletedProcess(["fenhe", *texts], code, printed, said)
