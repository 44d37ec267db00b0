"""Letters are sent again soon after the hierarchy has changed.

While the nodes switch one after the other, what is on its way is refused where the ways differ, and
what was signed under a former name is not proven. The author's pauses, which double, would make
such a letter wait for many minutes though everybody has long switched.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection

from node.clock import Clock
from node.logs import get_logger
from node.region.store import EpochStore
from node.storage.transactions import Transactions
from node.transit import Post

__all__ = ["AFTER_MS", "LetterHurry"]

AFTER_MS: Final = (30_000, 120_000, 300_000, 900_000, 3_600_000)
"""How long after a switch: few, because each puts every letter under way into the log again."""
_HURRIED: Final = "hurried"


class LetterHurry:
    """For the epoch in force; how often it was done is noted with it. Blocks on the database."""

    def __init__(
        self, epochs: EpochStore, epoch: int, transactions: Transactions, post: Post, clock: Clock
    ) -> None:
        self._epochs = epochs
        self._epoch = epoch
        self._transactions = transactions
        self._post = post
        self._clock = clock
        self._is_over = False

    def step(self) -> bool:
        """Make letters due if it is time; whether it was."""
        if self._is_over:
            return False
        row = self._epochs.get(self._epoch)
        if row is None or row.activated_ms is None or "from" not in row.progress:
            self._is_over = True
            return False
        done = int(row.progress.get(_HURRIED, 0))
        if done >= len(AFTER_MS):
            self._is_over = True
            return False
        now_ms = self._clock.now_ms()
        passed = sum(now_ms >= row.activated_ms + after_ms for after_ms in AFTER_MS)
        if now_ms < row.activated_ms:
            # The clock was set back: nobody knows how long it is.
            passed = done + 1
        if passed <= done:
            return False

        def work(connection: Connection) -> int:
            self._epochs.note_in(connection, self._epoch, {_HURRIED: passed})
            return self._post.outbox.hurry(connection, now_ms)

        letters = self._transactions.write(work)
        get_logger("region").info("letters are sent again", epoch=self._epoch, letters=letters)
        return True
