"""One comparison with a neighbour, slice by slice, and the mending of what it finds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from hierarchy_config.errors import FenheError
from hierarchy_config.model import NodeId
from node.reconcile.ends import End, FarEnd, NearEnd
from node.reconcile.model import Cause, LinkReport, Pair, Slice, Verdict, row_id_of
from node.reconcile.ranges import Asked, RangeSearch
from node.reconcile.side import KEYS_A_SETTLE
from node.storage.specs import TABLES
from replication.channel import AskRefusedError
from replication.errors import RemoteProtocolError

__all__ = ["Comparison"]

UNDECIDED_MAX: Final = 1000
_ORDER: Final = {name: place for place, name in enumerate(TABLES)}

Told = Callable[[LinkReport], Awaitable[None]]


class Comparison:
    """Compares with one neighbour."""

    def __init__(
        self, pair: Pair, here: NodeId, near: NearEnd, far: FarEnd, *, repair: bool
    ) -> None:
        self._pair = pair
        self._here = here
        self._near = near
        self._far = far
        self._repair = repair
        self.report = LinkReport(pair.parent if here == pair.child else pair.child)

    async def run(self, tables: Sequence[str], told: Told) -> LinkReport:
        """Compare all slices of some tables.

        Args:
            tables: Of the schema, in any order.
            told: Is told after each slice how far it is; what it waits, the comparison waits.

        Every error of the link or of the other end ends it and stands in the report as its fault.
        """
        try:
            for part in await self.parts(tables):
                await self.compare(part)
                await told(self.report)
        except AskRefusedError as error:
            self.report.fault, self.report.fault_message = error.status, error.message
        except FenheError as error:
            self.report.fault, self.report.fault_message = error.code, error.message
        self.report.questions, self.report.bytes = self._far.questions, self._far.bytes
        return self.report

    async def parts(self, tables: Sequence[str]) -> list[Slice]:
        """What either end has rows of; a resident's own row before what hangs on it."""
        known = set(await self._near.slices(tables)) | set(await self._far.slices(tables))
        return sorted(
            (part for part in known if part.table in tables),
            key=lambda part: (part.home, _ORDER[part.table], part.direction),
        )

    async def compare(self, part: Slice) -> int:
        """Compare one slice and mend it; how many rows were looked at."""
        leaves, strays = await self._near.begin(part)
        search = RangeSearch(leaves)
        rows, fresh = len(leaves), True
        try:
            while (ask := search.next()) is not None:
                if ask.kind is Asked.DIGESTS:
                    digests = await self._far.digests(part, ask.spans, fresh=fresh)
                    rows = max(rows, digests[0].count) if fresh else rows
                    fresh = False
                    search.take_digests(digests)
                else:
                    search.take_leaves(await self._far.pages(part, ask.spans))
        except (ValueError, IndexError):
            raise RemoteProtocolError("an answer of a comparison does not fit") from None
        keys = [each.key for each in search.found]
        if keys:
            for start in range(0, len(keys), KEYS_A_SETTLE):
                await self._settle(part, keys[start : start + KEYS_A_SETTLE])
            await self._far.end(part)
        await self._near.end(part)
        for _ in range(strays):
            self.report.differing += 1
            self._leave(part, b"", Cause.SEAL_BROKEN)
        self.report.slices += 1
        self.report.rows += rows
        return rows

    async def _settle(self, part: Slice, keys: Sequence[bytes]) -> None:
        """Ask the owner about rows that differed, and do what he says."""
        is_owner = self._pair.owner(part.direction) == self._here
        owner, copy = self._ends(is_owner)
        opened = await owner.opened()
        theirs = dict(zip(keys, await copy.current(part, keys), strict=True))
        verdicts = await owner.settle(part, opened, theirs, repair=self._repair)
        report = self.report
        report.young += sum(each.young for each in verdicts)
        found = [each for each in verdicts if each.cause is not None]
        for each in found:
            report.differing += 1
            cause = str(each.cause)
            report.causes[cause] = report.causes.get(cause, 0) + 1
            if each.cause is not None and not each.decided:
                self._leave(part, each.key, each.cause)
        if self._repair:
            await self._mend(part, found, owner, copy)

    def _ends(self, is_owner: bool) -> tuple[End, End]:
        return (self._near, self._far) if is_owner else (self._far, self._near)

    async def _mend(self, part: Slice, found: Sequence[Verdict], owner: End, copy: End) -> None:
        handed = [each for each in found if each.row is not None]
        if handed:
            rows = [each.row for each in handed if each.row is not None]
            self._count(part, handed, [each.cause for each in await copy.take(part, rows)])
        wanted = [each for each in found if each.wants]
        if wanted:
            offers = await copy.give(part, [each.key for each in wanted])
            rows = [offer.row for offer in offers if offer.row is not None]
            done = iter(await owner.take(part, rows) if rows else ())
            causes = [offer.cause if offer.row is None else next(done).cause for offer in offers]
            self._count(part, wanted, causes)
        # The owner has mended itself from its log, and the copy was right.
        self.report.repaired += sum(
            each.cause is Cause.OWNER_ALTERED and each.row is None for each in found
        )

    def _count(
        self, part: Slice, verdicts: Sequence[Verdict], causes: Sequence[Cause | None]
    ) -> None:
        for verdict, cause in zip(verdicts, causes, strict=True):
            if cause is None:
                self.report.repaired += 1
            else:
                self._leave(part, verdict.key, cause)

    def _leave(self, part: Slice, key: bytes, cause: Cause) -> None:
        self.report.undecided_count += 1
        if len(self.report.undecided) < UNDECIDED_MAX:
            self.report.undecided.append((part, row_id_of(key) if key else "", cause))
