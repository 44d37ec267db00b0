"""Pairs are found, go and come again; whatever ends the process between, they are the same."""

from __future__ import annotations

from dataclasses import replace

import pytest

from node.matching import finder as steps
from node.matching.book import PairBook
from node.matching.errors import TooManyResidentsError
from node.matching.model import MatchOutcome, PairState, key_of
from node.storage.errors import StorageBusyError
from node.storage.moving import START, Position
from replication.changelog import write_transaction
from tests.contracts.matching.place import MARKER, OTHER_MODEL, Matching, arrive, twice, values
from tests.contracts.storage.region import VILLAGE, Region, person, stored_files


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many steps, so that there is a place between any two."""
    monkeypatch.setattr(steps, "PAGE", 3)
    monkeypatch.setattr(steps, "ASKED", 2)


def crowd(matching: Matching, people: int = 7, first: int = 100) -> None:
    """People who are nobody else."""
    matching.register(*(person("", **values(n)) for n in range(first, first + people)))


def test_finds_who_was_here_before_it_began(matching: Matching) -> None:
    """Whoever is held when the index is built is asked for once."""
    crowd(matching)
    pair = twice(matching, 1)

    matching.settle()

    assert matching.pairs() == {pair}
    row = matching.rows()[pair]
    assert (row.outcome, row.decided_at, row.found_at) == ("link", None, matching.node.clock.ms)
    assert row.probability > 0.9
    assert matching.progress().asked_to is None
    assert matching.finder.standing.indexed == 9


def test_finds_who_comes_later(matching: Matching) -> None:
    """The log is followed: nobody is asked again who did not change."""
    matching.settle()
    pair = twice(matching, 1)
    matching.settle()
    assert matching.pairs() == {pair}
    assert matching.progress().sequence == matching.node.durable_head()

    matching.forget_pairs()
    crowd(matching)
    matching.settle()

    assert matching.rows() == {}


def test_two_of_one_transaction_find_each_other(
    matching: Matching, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one step or in two, in the order of their ids or not."""
    matching.settle()
    for number, asked in enumerate((1, 50)):
        monkeypatch.setattr(steps, "ASKED", asked)
        pair = twice(matching, number)
        matching.settle()
        assert pair in matching.pairs()


def test_an_amendment_makes_it_gone_and_again_waiting(matching: Matching) -> None:
    """Who no longer matches does not wait; who matches again does."""
    crowd(matching)
    pair = twice(matching, 1)
    matching.settle()
    found_at = matching.rows()[pair].found_at

    matching.register(person("", resident_id=pair[1], **values(62)))
    matching.settle()
    assert matching.pairs(PairState.GONE) == {pair}

    matching.node.clock.ms += 5_000
    matching.register(person("", resident_id=pair[1], **values(1)))
    matching.settle()
    assert matching.pairs() == {pair}
    assert matching.rows()[pair].found_at == found_at + 5_000


def test_an_amendment_brings_the_weight_up_to_date(matching: Matching) -> None:
    """The evidence is that of the values now; when it was found stays."""
    crowd(matching)
    pair = twice(matching, 1)
    matching.settle()
    before = matching.rows()[pair]
    matching.node.clock.ms += 5_000

    for each in pair:
        matching.register(person("", resident_id=each, **values(1, phone="15900000000")))
        matching.settle()

    after = matching.rows()[pair]
    assert '"phone": ["different"' in before.why
    assert '"phone": ["exact"' in after.why
    assert (after.state, after.found_at) == ("waiting", before.found_at)


def test_an_end_makes_it_gone(upper: Matching) -> None:
    """A tombstone that comes up from below; and a resident who comes back."""
    one, other = arrive(upper.node, 1, 1, values(1)), arrive(upper.node, 2, 1, values(1))
    arrive(upper.node, 3, 1, values(3))
    upper.settle()
    assert upper.pairs() == {key_of(one, other)}

    arrive(upper.node, 2, 2, None)
    upper.settle()

    assert upper.pairs(PairState.GONE) == {key_of(one, other)}
    assert upper.finder.standing.indexed == 2
    arrive(upper.node, 2, 3, values(1))
    upper.settle()
    assert upper.pairs() == {key_of(one, other)}


def test_homes_that_left_are_gone(upper: Matching, region: Region) -> None:
    """Rows that are deleted for good take their pairs from the queue."""
    village = Matching(region.node(VILLAGE))
    pair = twice(village, 1)
    region.ship(village.node, upper.node)
    upper.settle()
    assert upper.pairs() == {pair}

    after: Position | None = START
    while after is not None:
        after = upper.node.storage.moving.purge([VILLAGE], after, 100)
    upper.settle()

    assert upper.pairs(PairState.GONE) == {pair}
    assert upper.finder.standing.indexed == 0


def test_what_went_while_it_was_off_is_gone(upper: Matching) -> None:
    """Under another model, of whom both have gone nobody is asked for: they are swept."""
    one, other = arrive(upper.node, 1, 1, values(1)), arrive(upper.node, 2, 1, values(1))
    upper.settle()
    arrive(upper.node, 1, 2, None)
    arrive(upper.node, 2, 2, None)

    upper.open(OTHER_MODEL)
    upper.settle()

    assert upper.pairs(PairState.GONE) == {key_of(one, other)}


def test_what_was_decided_stays(matching: Matching) -> None:
    """Neither an amendment nor another model moves it, nor is it found again."""
    crowd(matching)
    pair = twice(matching, 1)
    matching.settle()
    matching.decide((pair[1], pair[0]), 77)
    decided = matching.rows()[pair]
    assert (decided.state, decided.decided_at) == ("decided", 77)

    matching.register(person("", resident_id=pair[1], **values(62)))
    matching.settle()
    matching.register(person("", resident_id=pair[1], **values(1)))
    matching.settle()
    matching.open(OTHER_MODEL)
    matching.settle()

    assert matching.rows() == {pair: decided}


def test_a_decision_over_a_pair_that_was_not_found(matching: Matching) -> None:
    """It is not offered afterwards."""
    one, other = matching.register(person("", **values(1)), person("", **values(2)))
    matching.settle()
    pair = key_of(one, other)
    matching.decide(pair)
    matching.register(person("", resident_id=other, **values(1)))
    matching.settle()
    assert matching.pairs(PairState.DECIDED) == {pair}


def test_a_death_after_any_step_loses_nothing(
    matching: Matching, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new life builds the index anew and asks for whoever changed since, or was not asked for."""
    monkeypatch.setattr(steps, "PAGE", 100)
    crowd(matching)
    old = twice(matching, 0)
    matching.settle()
    for lived in range(7):
        fresh = twice(matching, 10 + lived)
        crowd(matching, 4, 200 + 10 * lived)
        matching.register(person("", resident_id=old[1], **values(60 + lived)))
        for _ in range(lived):
            matching.step()
        matching.open()
        matching.settle()
        assert matching.pairs() == {fresh}
        assert old in matching.pairs(PairState.GONE)
        old = fresh
    assert len(matching.rows()) == 8


@pytest.mark.parametrize("every", [3, 4, 7])
def test_asking_for_everybody_outlives_many_deaths(matching: Matching, every: int) -> None:
    """No life comes far; together they ask for everybody once."""
    pairs = {twice(matching, number) for number in range(4)}
    crowd(matching, 4)
    taken = 0
    while matching.step():
        taken += 1
        if taken % every == 0 and matching.finder.standing.is_ready:
            matching.open()
        assert taken < 200
    assert matching.pairs() == pairs


def test_a_write_that_fails_is_done_again(
    matching: Matching, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index in memory was ahead of the tables; the next step catches up."""
    crowd(matching)
    matching.settle()
    pair = twice(matching, 1)
    with monkeypatch.context() as patch:
        patch.setattr(PairBook, "write", _lost)
        with pytest.raises(StorageBusyError):
            matching.step()
    assert matching.pairs() == set()

    matching.settle()

    assert matching.pairs() == {pair}


def _lost(*_args: object) -> None:
    raise StorageBusyError("lost")


def test_who_changed_while_it_was_off_is_asked_for_again(matching: Matching) -> None:
    """And nobody else: a start costs no asking of everybody."""
    old = twice(matching, 1)
    matching.settle()
    matching.forget_pairs()
    fresh = twice(matching, 2)

    matching.open()
    matching.settle()

    assert matching.pairs() == {fresh}
    assert old not in matching.rows()


@pytest.mark.parametrize("what", ["model", "epoch", "pruned", "ahead"])
def test_what_asks_for_everybody_again(matching: Matching, what: str) -> None:
    """Another model, another life of the store, a log that begins later, or that ends earlier."""
    old = twice(matching, 1)
    matching.settle()
    matching.forget_pairs()
    model = None
    held = matching.progress()
    match what:
        case "model":
            model = OTHER_MODEL
        case "epoch":
            matching.book.write({}, {}, replace(held, store_epoch=held.store_epoch + 1))
        case "ahead":
            matching.book.write({}, {}, replace(held, sequence=held.sequence + 1_000))
        case _:
            crowd(matching)
            _prune(matching)
            matching.node.storage = matching.node.open_storage_again()

    matching.open(model)
    matching.settle()

    assert matching.pairs() == {old}
    assert matching.progress().asked_to is None
    digests = {row.model_digest for row in matching.rows().values()}
    assert digests == {steps.digest_of(matching.model)}


def _prune(matching: Matching) -> None:
    head = matching.node.durable_head()
    with write_transaction(matching.node.engine) as connection:
        matching.node.log.prune(connection, up_to=head)


def test_a_log_that_was_pruned_under_it(matching: Matching) -> None:
    """The index does not know who changed: it is built anew."""
    pair = twice(matching, 1)
    matching.settle()
    # Another process of the store writes: what it commits is not in this one's memory.
    matching.node.storage = matching.node.open_storage_again()
    matching.register(person("", resident_id=pair[0], **values(62)))
    _prune(matching)
    crowd(matching)

    matching.settle()

    assert matching.pairs(PairState.GONE) == {pair}
    assert matching.finder.standing.indexed == 9


def test_asking_for_everybody_goes_on_where_it_stopped(matching: Matching) -> None:
    """Who was asked for before the death is not asked for again."""
    pairs = [twice(matching, number) for number in range(6)]
    matching.settle()
    matching.open(OTHER_MODEL)
    while (matching.book.progress() or matching.progress()).model_digest != steps.digest_of(
        OTHER_MODEL
    ) or not matching.progress().asked_to:
        assert matching.step()
    asked_to = matching.progress().asked_to
    assert asked_to
    matching.forget_pairs()

    matching.open()
    matching.settle()

    assert matching.pairs() == {pair for pair in pairs if max(pair) > asked_to}


def test_a_row_that_does_not_open_stops_nobody(
    matching: Matching, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is set aside and its pairs stay as they are; the others are found."""
    damaged = twice(matching, 1)
    matching.settle()
    cells = matching.node.storage.context.cells
    opened = type(cells).open_cell

    def broken(self: object, table: str, column: str, row_id: str, sealed: bytes) -> object:
        if row_id == damaged[0]:
            raise ValueError(table)
        return opened(cells, table, column, row_id, sealed)

    monkeypatch.setattr(type(cells), "open_cell", broken)
    sound = twice(matching, 2)
    matching.register(person("", resident_id=damaged[0], **values(1)))
    matching.open()
    matching.settle()

    assert matching.pairs() == {damaged, sound}
    assert matching.node.storage.context.aside.counts()["residents"] == 1


def test_more_residents_than_there_is_memory_for(matching: Matching) -> None:
    """It begins with nothing, and ends when too many have come."""
    crowd(matching, 4)
    matching.open(residents_max=3)
    with pytest.raises(TooManyResidentsError):
        matching.step()
    matching.open(residents_max=5)
    matching.settle()
    crowd(matching, 2, 200)
    with pytest.raises(TooManyResidentsError):
        matching.settle()


def test_no_value_of_anybody_is_kept(matching: Matching) -> None:
    """Levels and bits; names, numbers and addresses are in no row and in no file."""
    crowd(matching)
    pair = twice(matching, 1, name=MARKER)
    other = twice(matching, 2)
    more = {"name": MARKER, "address": "山西省临汾市尧都区独此一家路9号"}
    third = twice(matching, 4, **more)
    matching.settle()
    assert {other, third} <= matching.pairs()

    text = repr([tuple(row) for row in matching.rows().values()])
    for number in (1, 2, 4):
        for value in (*values(number, **more).values(), *values(number).values()):
            assert value in {"male", "female"} or value not in text
    assert MARKER not in text
    assert pair[0]
    stored = b"".join(path.read_bytes() for path in stored_files(matching.node))
    assert MARKER.encode() not in stored
    assert more["address"].encode() not in stored
    why = matching.rows()[other].why
    assert '"name": ["exact",' in why
    assert '"phone": ["different",' in why


def test_people_who_share_what_is_public_are_no_pair(matching: Matching) -> None:
    """Two of a name and a sex, and two of an address."""
    matching.register(
        person("", **values(1)),
        person("", **values(13, name=values(1)["name"], sex="male")),
        person("", **values(22, address=values(1)["address"])),
    )
    matching.settle()
    assert matching.pairs() == set()


def test_the_pair_is_weighed_as_if_its_two_were_strangers_to_the_index(
    matching: Matching,
) -> None:
    """Found from either side, whoever was asked last, the weight is one."""
    crowd(matching)
    pair = twice(matching, 1)
    matching.settle()
    first = matching.found()
    for each in pair:
        phone = values(1)["phone"] if each == pair[0] else "15000000001"
        matching.register(person("", resident_id=each, **values(1, phone=phone)))
        matching.settle()
    assert first[pair][1] == MatchOutcome.LINK
    assert matching.found() == first


def test_made_up_people_hide_no_pair(matching: Matching, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where not everybody was compared, or not every pair is kept, none is known to be gone."""
    pair = twice(matching, 1)
    matching.settle()
    monkeypatch.setattr("node.empi.index.BLOCK_ROWS_MAX", 2)
    crowd = [person("", **{**values(1), "address": "", "phone": ""}) for _ in range(4)]
    matching.register(*crowd)
    matching.settle()
    matching.register(person("", resident_id=pair[0], **values(1)))
    matching.settle()
    assert pair in matching.pairs()

    monkeypatch.setattr("node.empi.index.BLOCK_ROWS_MAX", 2_000)
    monkeypatch.setattr("node.matching.finder._PAIRS_EACH", 1)
    matching.open(OTHER_MODEL)
    matching.settle()
    assert pair in matching.pairs()
    assert len(matching.pairs() | matching.pairs(PairState.GONE)) < 15
