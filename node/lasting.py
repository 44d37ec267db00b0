"""Background work that outlives the database's absence.

A database that restarts, hangs or runs full takes its callers' answers with it, not the node: what
works in the background begins again, with its cursors where they durably stand.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

from sqlalchemy.exc import SQLAlchemyError

from federation.errors import FederationError
from node.logs import get_logger

__all__ = ["lasting"]

PAUSE_S: Final = 2.0


async def lasting(name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run `work` until it ends; after a fault of a store, again. Any other error is raised.

    A fault of a store is one of the database or of the columnar replica. Its text stays out of the
    log: it may quote a cell.
    """
    log = get_logger("node")
    while True:
        try:
            await work()
        except (SQLAlchemyError, FederationError) as error:
            log.warning("a store failed, going on", work=name, error=type(error).__name__)
            await asyncio.sleep(PAUSE_S)
        else:
            return
