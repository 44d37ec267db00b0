"""Finds pairs: fills the index from the tables, follows the change log, asks who may be whom.

Works in steps that the caller paces; one thread at a time. The index is in memory and derived: a
process that ends at any point leaves pairs and progress of the same moment, and the next builds the
index anew and asks for whoever changed since. Imports NumPy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from sqlalchemy import Connection

from node.aside import ITEM_FAULTS
from node.empi.defaults import shipped_model
from node.empi.errors import IndexRowError, MatchModelError
from node.empi.index import Answer, MemoryIndex
from node.empi.model import MatchModel
from node.logs import get_logger
from node.matching.book import PairBook
from node.matching.errors import TooManyResidentsError
from node.matching.model import (
    PERSON_FIELDS,
    Evidence,
    MatchProgress,
    PairKey,
    Standing,
    evidence_of,
    key_of,
)
from node.matching.people import People, PeoplePage, Values, values_of
from node.storage import Storage
from replication.changelog import LogPrunedError

__all__ = ["Finder", "digest_of", "model_of"]

PAGE: Final = 200
"""Residents who are loaded in a step."""
ASKED: Final = 50
"""Residents who are asked for in a step and share a transaction."""
_PAIRS_A_STEP: Final = 2_000
_PAIRS_EACH: Final = 50
"""Pairs that are kept of one resident: nobody compares more, and made-up people could be many."""
_MODEL_BYTES_MAX: Final = 4 << 20
_UNSAVED: Final = 1_000
"""Entries of the log that may be looked at in vain before the progress is saved."""
_STALE: Final = 10_000
_ASIDE: Final = "matching"


_NO_MODEL: Final = (
    ArithmeticError,
    AttributeError,
    IndexRowError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What reading and using a text that is no model comes to."""


def model_of(path: Path) -> MatchModel:
    """The model of a file if it is there, else the shipped one.

    Raises:
        MatchModelError: The file cannot be read, or compares what residents do not have.
    """
    if not path.exists():
        return shipped_model()
    try:
        if path.stat().st_size > _MODEL_BYTES_MAX:
            raise MatchModelError(f"{path.name} is larger than {_MODEL_BYTES_MAX >> 20} MiB")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise MatchModelError(f"{path.name} cannot be read ({type(error).__name__})") from None
    try:
        model = MatchModel.from_json(text)
        strange = sorted({field.name for field in model.fields} - set(PERSON_FIELDS))
        if strange:
            raise MatchModelError(f"it compares what residents do not have: {strange[0]}")
        _try(model)
    except MatchModelError as error:
        said = f"{path.name} cannot be used: {error.message}"
        raise MatchModelError(said, hint=error.hint) from None
    except _NO_MODEL as error:
        said = type(error).__name__
        raise MatchModelError(f"{path.name} is no model of matching ({said})") from None
    return model


def _try(model: MatchModel) -> None:
    """Compare two made-up residents: what is wrong with a model shows here, and not at work."""
    index = MemoryIndex(model)
    values = {
        "name": "王小梅",
        "sex": "female",
        "birth_date": "1956-03-08",
        "identity_number": "142601195603080021",
        "phone": "13903570000",
        "address": "山西省临汾市尧都区鼓楼北大街1号",
    }
    fields = [each.name for each in model.fields]
    for number, name in enumerate(("王小梅", "李建国")):
        index.add(str(number), values_of(fields, {**values, "name": name}))
    index.others("0")
    index.query(values_of(fields, values))


def digest_of(model: MatchModel) -> str:
    """What tells a model from another: SHA-256 of its JSON."""
    return hashlib.sha256(model.to_json().encode()).hexdigest()


class Finder:
    """The index of one process, and the pairs it finds."""

    def __init__(
        self, storage: Storage, model: MatchModel, *, residents_max: int | None = None
    ) -> None:
        """Reads nothing yet. `residents_max`: None takes everybody, whatever memory that is."""
        self._store = storage.context
        self._changes = storage
        self._model = model
        self._fields = [field.name for field in model.fields]
        self.digest = digest_of(model)
        self._max = residents_max
        self._people = People(self._store, self._fields)
        self._book = PairBook(self._store)
        self._asks_everybody = False
        self._clear()

    def _clear(self) -> None:
        self._index = MemoryIndex(self._model)
        self._loaded_to: str | None = ""
        self._since: int | None = None
        self._residents = 0
        self._stale = 0
        self._progress: MatchProgress | None = None
        self._saved = 0
        self._waiting: list[str] = []
        self._stretch_to = 0

    @property
    def standing(self) -> Standing:
        """How far it is; may be read from another thread."""
        indexed = len(self._index)
        is_ready = self._loaded_to is None
        progress = self._progress
        return Standing(
            indexed=indexed,
            residents=indexed if is_ready else max(indexed, self._residents),
            is_ready=is_ready,
            is_asking=progress is None or progress.asked_to is not None,
        )

    def query(self, given: Mapping[str, str | None]) -> Answer:
        """Who of those in the index may be the one of whom this is known."""
        return self._index.query(values_of(self._fields, given))

    def step(self, head: int) -> bool:
        """One bounded piece of work up to `head`, the log's durable end; False: nothing to do.

        Raises:
            TooManyResidentsError: More are held than there is memory for.
        """
        if self._loaded_to is not None:
            self._load()
            return True
        progress = self._progress
        if progress is None:
            progress = self._progress = self._begin()
        if self._waiting or progress.sequence < head:
            self._follow(progress, head)
            return True
        if progress.asked_to is not None:
            self._ask_on(progress, progress.asked_to)
            return True
        return self._tidy()

    # -------------------------------------------------------------------- loading

    def _load(self) -> None:
        if self._since is None:
            # What has this number or a lower one is in the pages that are read from now on.
            self._since, self._residents = self._store.transactions.read(self._start)
            self._refuse_too_many(self._residents)
        page = self._people.page(self._loaded_to or "", PAGE)
        try:
            self._index.extend(page.readable.items())
        except ITEM_FAULTS:
            self._put(page)
        self._loaded_to = page.last

    def _start(self, connection: Connection) -> tuple[int, int]:
        return self._store.changelog.head(connection), self._people.count(connection)

    def _refuse_too_many(self, residents: int) -> None:
        if self._max is not None and residents > self._max:
            raise TooManyResidentsError(
                f"{residents} residents are held, and there is memory to match {self._max}"
            )

    def _begin(self) -> MatchProgress:
        """Go on where an earlier life stopped, or ask for everybody."""
        since, epoch = self._since or 0, self._store.changelog.store_epoch
        held = self._book.progress()
        if (
            held is not None
            and (held.store_epoch, held.model_digest) == (epoch, self.digest)
            and held.sequence <= since
            and not self._asks_everybody
        ):
            self._saved = held.sequence
            return held
        self._asks_everybody = False
        fresh = MatchProgress(epoch, since, self.digest, "")
        self._save({}, {}, fresh)
        get_logger("matching").info("asking for everybody", residents=len(self._index))
        return fresh

    # -------------------------------------------------------------------- following

    def _follow(self, progress: MatchProgress, head: int) -> None:
        if not self._waiting:
            try:
                changed = self._changes.changed_residents(progress.sequence, up_to=head)
            except LogPrunedError:
                self._clear()
                self._asks_everybody = True
                return
            self._waiting, self._stretch_to = sorted(changed.resident_ids), changed.up_to
        if not self._waiting:
            self._progress = replace(progress, sequence=self._stretch_to)
            if self._stretch_to - self._saved >= _UNSAVED:
                self._save({}, {}, self._progress)
            return
        some = self._waiting[:ASKED]
        page = self._people.of(some)
        taken = self._put(page)
        lost = [each for each in some if each not in page.readable.keys() | page.unreadable]
        for each in lost:
            if each in self._index:
                self._index.remove(each)
                self._stale += 1
        asked, later, found = self._ask(taken)
        left = [*later, *self._waiting[ASKED:]]
        reached = progress if left else replace(progress, sequence=self._stretch_to)
        self._save({**asked, **dict.fromkeys(lost, True)}, found, reached)
        self._waiting, self._progress = left, reached
        self._refuse_too_many(len(self._index))

    def _put(self, page: PeoplePage) -> list[str]:
        """Put the readable residents of a page into the index; those who are in it as they are."""
        taken = []
        for resident_id, values in page.readable.items():
            try:
                self._put_one(resident_id, values)
            except ITEM_FAULTS as error:
                self._store.aside.add(_ASIDE, resident_id, error)
            else:
                self._store.aside.clear(_ASIDE, resident_id)
                taken.append(resident_id)
        return taken

    def _put_one(self, resident_id: str, values: Values) -> None:
        if resident_id in self._index:
            self._index.amend(resident_id, values)
            self._stale += 1
        else:
            self._index.add(resident_id, values)

    # -------------------------------------------------------------------- asking

    def _ask_on(self, progress: MatchProgress, after: str) -> None:
        """The next of everybody; at the end, pairs of those who are not here any more go."""
        some = self._people.ids(after, ASKED)
        if some:
            # Who is not in the index came after it was built, or stands aside; the log names him.
            known = [each for each in some if each in self._index]
            asked, later, found = self._ask(known)
            reached = some[some.index(later[0]) - 1] if later else some[-1]
            progress = replace(progress, asked_to=reached)
            self._save(asked, found, progress)
        elif not self._book.sweep():
            progress = replace(progress, asked_to=None)
            self._save({}, {}, progress)
        self._progress = progress

    def _ask(
        self, resident_ids: Sequence[str]
    ) -> tuple[dict[str, bool], Sequence[str], dict[PairKey, Evidence]]:
        """Who was asked for, who is left for the next step, and the pairs that were found.

        Of those asked for: whether everybody was compared and every pair is kept; else none of his
        is known to be gone.

        At least the first is not left. Who cannot be asked for is set aside, his pairs as they are.
        """
        asked: dict[str, bool] = {}
        found: dict[PairKey, Evidence] = {}
        for place, resident_id in enumerate(resident_ids):
            if len(found) >= _PAIRS_A_STEP:
                return asked, resident_ids[place:], found
            try:
                answer = self._index.others(resident_id)
            except ITEM_FAULTS as error:
                self._store.aside.add(_ASIDE, resident_id, error)
                continue
            asked[resident_id] = not answer.oversized and len(answer.candidates) <= _PAIRS_EACH
            for each in answer.candidates[:_PAIRS_EACH]:
                found[key_of(resident_id, each.resident_id)] = evidence_of(each)
        return asked, (), found

    def _save(
        self, asked: Mapping[str, bool], found: Mapping[PairKey, Evidence], progress: MatchProgress
    ) -> None:
        self._book.write(asked, found, progress)
        self._saved = progress.sequence

    def _tidy(self) -> bool:
        """Forget values that were amended or removed, once they outweigh what is held."""
        if self._stale < max(_STALE, len(self._index) // 2):
            return False
        self._index.rebuild()
        self._stale = 0
        return True
