"""The pairs that were found, and how far: the tables, and who sees what is in them.

Whatever is found of some residents and the progress are written in one transaction. A pair that a
steward has decided is never written by matching again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, and_, insert, or_, select
from sqlalchemy import update as change

from node.matching.model import (
    Evidence,
    MatchOutcome,
    MatchPair,
    MatchProgress,
    PairKey,
    PairState,
    Reason,
    key_of,
)
from node.storage.context import StoreContext
from node.storage.rows import chunks
from node.storage.specs import RESIDENTS
from node.storage.tables import MATCHING, REPLICATED
from replication.core.model import Form

__all__ = ["PairBook", "Place", "evidence_text"]

_P: Final = MATCHING.pairs
_PROGRESS: Final = MATCHING.progress
_R: Final = REPLICATED[RESIDENTS.name]
_ROW: Final = 1
_ONE: Final = _PROGRESS.c.progress_id == _ROW
_SWEPT: Final = 200

Place = tuple[float, str, str]
"""Where a page of pairs ended: probability and both ids."""


class PairBook:
    """Pairs and progress of one node."""

    def __init__(self, store: StoreContext) -> None:
        self._store = store

    def progress(self) -> MatchProgress | None:
        """As it was saved; None: nothing was ever asked here."""
        row = self._store.transactions.read(
            lambda connection: connection.execute(select(_PROGRESS).where(_ONE)).first()
        )
        if row is None:
            return None
        return MatchProgress(row.store_epoch, row.sequence, row.model_digest, row.asked_to)

    def write(
        self, asked: Mapping[str, bool], found: Mapping[PairKey, Evidence], progress: MatchProgress
    ) -> None:
        """Keep what was found of those asked for, and the progress. Durable on return.

        A waiting pair of theirs that is not in `found` is gone, if of one of the two all are known;
        one that had gone waits again.

        Args:
            asked: Who was asked for, and whether all pairs of his are in `found`.
            found: The pairs.
            progress: What is kept with them.
        """
        now_ms = self._store.clock.now_ms()
        digest = progress.model_digest

        def work(connection: Connection) -> None:
            held = _pairs_of(connection, asked)
            fresh = [key for key in found if key not in held]
            if fresh:
                rows = [_row(key, found[key], digest, now_ms) for key in fresh]
                connection.execute(insert(_P), rows)
            for key, row in held.items():
                if row.state == PairState.DECIDED:
                    continue
                if key in found or any(asked.get(each) for each in key):
                    self._update(connection, row, found.get(key), digest, now_ms)
            _save(connection, progress)

        self._store.transactions.write(work)

    def _update(
        self,
        connection: Connection,
        row: Row[Any],
        evidence: Evidence | None,
        digest: str,
        now_ms: int,
    ) -> None:
        if evidence is None:
            values: dict[str, Any] = {"state": PairState.GONE.value}
        else:
            values = _row((row.first_id, row.second_id), evidence, digest, now_ms)
            if row.state == PairState.WAITING:
                values["found_at"] = row.found_at
        if all(getattr(row, name) == value for name, value in values.items()):
            return
        # A steward may have decided since the row was read.
        undecided = _P.c.state != PairState.DECIDED.value
        key = _is(row.first_id, row.second_id)
        connection.execute(change(_P).where(key, undecided).values(values))

    def sweep(self) -> int:
        """Let some waiting pairs go of whom one is not held any more; how many. Again until 0."""

        def work(connection: Connection) -> int:
            lost = (
                select(_P.c.first_id, _P.c.second_id)
                .where(_P.c.state == PairState.WAITING.value)
                .where(or_(~_is_held(_P.c.first_id), ~_is_held(_P.c.second_id)))
                .limit(_SWEPT)
            )
            keys = connection.execute(lost).all()
            for first_id, second_id in keys:
                waits = _P.c.state == PairState.WAITING.value
                gone = change(_P).where(_is(first_id, second_id), waits)
                connection.execute(gone.values(state=PairState.GONE.value))
            return len(keys)

        return self._store.transactions.write(work)

    # -------------------------------------------------------------------- the steward's side

    def decide(self, connection: Connection, one: str, other: str, now_ms: int) -> None:
        """Mark a pair as decided; one that was never found is kept so that it never will be."""
        first_id, second_id = key_of(one, other)
        decided = {"state": PairState.DECIDED.value, "decided_at": now_ms}
        done = connection.execute(change(_P).where(_is(first_id, second_id)).values(decided))
        if done.rowcount == 0 and not _exists(connection, (first_id, second_id)):
            row = _row((first_id, second_id), _NO_EVIDENCE, "", now_ms)
            connection.execute(insert(_P), [{**row, **decided}])

    def evidence(self, connection: Connection, one: str, other: str) -> tuple[str, str]:
        """What speaks for a pair, and the digest of the model that says so; "": never found."""
        columns = select(_P.c.why, _P.c.model_digest)
        row = connection.execute(columns.where(_is(*key_of(one, other)))).first()
        return ("", "") if row is None or not row.model_digest else (row.why, row.model_digest)

    def page(
        self, connection: Connection, state: PairState, after: Place | None, limit: int
    ) -> list[MatchPair]:
        """The next pairs of a state, the likeliest first, whoever asks."""
        query = select(_P).where(_P.c.state == state.value)
        if after is not None:
            query = query.where(_behind(after))
        query = query.order_by(_P.c.probability.desc(), _P.c.first_id, _P.c.second_id).limit(limit)
        return [_pair(row) for row in connection.execute(query)]


_NO_EVIDENCE: Final = Evidence(0.0, 0.0, MatchOutcome.REVIEW, ())
_HELD: Final = (_R.c.form == Form.FULL.value, _R.c.deleted.is_(False))


def _is_held(column: ColumnElement[str]) -> ColumnElement[bool]:
    return select(_R.c.row_id).where(_R.c.row_id == column, *_HELD).exists()


def _is(first_id: str, second_id: str) -> ColumnElement[bool]:
    return and_(_P.c.first_id == first_id, _P.c.second_id == second_id)


def _exists(connection: Connection, key: PairKey) -> bool:
    """Whether there is such a row: an update that changes nothing counts none on MySQL."""
    return connection.execute(select(_P.c.first_id).where(_is(*key))).first() is not None


def _behind(place: Place) -> ColumnElement[bool]:
    probability, first_id, second_id = place
    same = _P.c.probability == probability
    return or_(
        _P.c.probability < probability,
        and_(same, _P.c.first_id > first_id),
        and_(same, _P.c.first_id == first_id, _P.c.second_id > second_id),
    )


def _pairs_of(connection: Connection, resident_ids: Iterable[str]) -> dict[PairKey, Row[Any]]:
    found: dict[PairKey, Row[Any]] = {}
    for some in chunks(sorted(resident_ids)):
        for column in (_P.c.first_id, _P.c.second_id):
            for row in connection.execute(select(_P).where(column.in_(some))):
                found[row.first_id, row.second_id] = row
    return found


def _save(connection: Connection, progress: MatchProgress) -> None:
    values = {
        "store_epoch": progress.store_epoch,
        "sequence": progress.sequence,
        "model_digest": progress.model_digest,
        "asked_to": progress.asked_to,
    }
    if connection.execute(select(_PROGRESS.c.progress_id).where(_ONE)).first() is None:
        connection.execute(insert(_PROGRESS), [{"progress_id": _ROW, **values}])
    else:
        connection.execute(change(_PROGRESS).where(_ONE).values(values))


def _row(key: PairKey, evidence: Evidence, digest: str, now_ms: int) -> dict[str, Any]:
    first_id, second_id = key
    return {
        "first_id": first_id,
        "second_id": second_id,
        "weight": evidence.weight,
        "probability": evidence.probability,
        "outcome": evidence.outcome.value,
        "why": evidence_text(evidence),
        "model_digest": digest,
        "state": PairState.WAITING.value,
        "found_at": now_ms,
        "decided_at": None,
    }


def evidence_text(evidence: Evidence) -> str:
    """Why, as it is kept: by field, the name of its level and bits."""
    return json.dumps({each.field: [each.level, round(each.bits, 4)] for each in evidence.why})


def _pair(row: Row[Any]) -> MatchPair:
    why = tuple(
        Reason(field, str(level), float(bits))
        for field, (level, bits) in json.loads(row.why).items()
    )
    evidence = Evidence(row.weight, row.probability, MatchOutcome(row.outcome), why)
    return MatchPair(
        row.first_id,
        row.second_id,
        evidence,
        row.model_digest,
        PairState(row.state),
        row.found_at,
        row.decided_at,
    )
