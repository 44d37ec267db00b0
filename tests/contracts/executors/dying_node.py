"""A node that starts Ray, says where, and waits to be killed: `python -m …dying_node FOLDER`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from federation.local import LocalSite
from federation.ray_runner import Loopback, RayExecutor, RaySettings


def issue(query_id: str, lifetime_ms: int) -> Loopback:
    """No question is asked here."""
    raise AssertionError


async def main(folder: Path) -> None:
    """Start, say where, wait."""
    executor = RayExecutor(
        RaySettings(workers=1, object_store_mb=80),
        LocalSite(None, None),
        issue=issue,
        new_token=lambda: "f" * 32,
        temporary=folder,
    )
    await executor.start()
    print(executor.session, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
