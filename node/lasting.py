"""Background work that outlives what passes, and what is wrong with something it works on.

What ends the process, and what does not:

- A fault of a store (the database or the columnar replica is away, hangs or is full), of the disk
  or the net (OSError), and any FenheError: the work begins again, with its cursors where they
  durably stand. The rest of the node serves on; to end it would take every caller's answers with it
  and cure nothing. Pauses double from PAUSE_S to PAUSE_S_MAX, and begin anew once the work held for
  that long.
- SequencerFencedError: another process owns this store, or the store is in another life. Whatever
  this process did from then on could be wrong; it ends.
- Any other exception is a defect of the program: what it left in memory is not to be trusted. The
  process ends, and whoever supervises it starts it again from what is durable.

One damaged item (a row, a letter, a move) should never come as far as here: whoever works through
items sets it aside (node/aside.py) and goes on with the next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

from sqlalchemy.exc import SQLAlchemyError

from hierarchy_config.errors import FenheError
from node.logs import get_logger
from replication.changelog import SequencerFencedError

__all__ = ["PAUSE_S", "PAUSE_S_MAX", "lasting"]

PAUSE_S: Final = 2.0
PAUSE_S_MAX: Final = 60.0


async def lasting(name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run `work` until it ends; after what passes, again. Any other error is raised.

    The error's text stays out of the log: a database's may quote a cell.
    """
    log = get_logger("node")
    loop = asyncio.get_running_loop()
    pause_s = PAUSE_S
    while True:
        began = loop.time()
        try:
            await work()
        except SequencerFencedError:
            raise
        except (SQLAlchemyError, FenheError, OSError) as error:
            if loop.time() - began > PAUSE_S_MAX:
                pause_s = PAUSE_S
            code = error.code if isinstance(error, FenheError) else type(error).__name__
            log.warning("background work failed, going on", work=name, error=code, pause_s=pause_s)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, PAUSE_S_MAX)
        else:
            return
