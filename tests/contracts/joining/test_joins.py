"""Joins that go well, are cut off, come too late, or meet a clock that is wrong."""

from __future__ import annotations

import json
import stat

import pytest

from hierarchy_config import load_region
from node.joining.child import DoorCalls
from node.joining.errors import (
    DoorUnreachableError,
    InvitationExpiredError,
    InvitationWithdrawnError,
    JoinClockError,
    JoinFolderError,
)
from node.joining.model import Begun, JoinAsked, Joined
from node.security.folders import NodeFolder
from node.settings import load_settings
from tests.contracts.joining.place import DAY_MS, LocalDoor, Place
from tests.unit.security.region import SIBLING, TOWNSHIP, VILLAGE

TEN_YEARS_MS = 10 * 365 * DAY_MS
MINUTE_MS = 60_000


class Cut:
    """A line that breaks: before the proof is sent, or before the answer comes."""

    def __init__(self, line: LocalDoor, *, sent: bool) -> None:
        self.certificate = line.certificate
        self._line = line
        self._sent = sent

    def begin(self, node_id: str, nonce: bytes) -> Begun:
        return self._line.begin(node_id, nonce)

    def join(self, asked: JoinAsked) -> Joined:
        if self._sent:
            self._line.join(asked)
        raise DoorUnreachableError("the line broke")


def test_makes_a_whole_folder(place: Place) -> None:
    """Settings, region, keys that nobody else reads; nothing is left beside it."""
    made = place.join()
    folder = place.root / "machine"
    settings = load_settings(folder)
    assert (made.node_id, made.parent_id, made.rebuilt) == (VILLAGE, TOWNSHIP, False)
    assert settings.node_id == VILLAGE
    assert settings.parent_endpoint == "township:4510"
    assert VILLAGE in load_region(folder / "region.yaml")
    assert not place.is_made("machine.joining")
    assert not (folder / "joining.json").exists()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for key in (folder / "keys").iterdir():
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert not NodeFolder(folder).regional_index_key.exists()
    operator = place.operator.principal
    child = "spiffe://linfen/" + VILLAGE
    assert place.audited() == [(operator, "invite", "done"), (child, "join", "done")]


@pytest.mark.parametrize("sent", [False, True], ids=["before the proof", "before the answer"])
def test_a_line_that_breaks_costs_nothing(place: Place, sent: bool) -> None:
    """The machine asks again with the keys it made: the invitation knows them by then."""
    with pytest.raises(DoorUnreachableError):
        place.join(through=lambda line: Cut(line, sent=sent))
    assert not place.is_made()
    draft = place.root / "machine.joining"
    key = NodeFolder(draft).tls.private_key.read_bytes()
    place.restart()
    place.join()
    assert NodeFolder(place.root / "machine").tls.private_key.read_bytes() == key
    assert place.standing() == ("used", 0)
    outcomes = [outcome for _, action, outcome in place.audited() if action == "join"]
    assert outcomes == (["done", "repeated"] if sent else ["done"])


def test_keys_that_were_cut_off_while_they_were_made_are_made_anew(place: Place) -> None:
    """A power cut between two keys: nobody has seen them, so they are thrown away."""
    draft = place.root / "machine.joining"
    NodeFolder(draft).keys.mkdir(parents=True)
    (draft / "joining.json").write_text(
        json.dumps({"node_id": VILLAGE, "prepared": False, "store_begun": False})
    )
    NodeFolder(draft).node_key.write_text("half of a k")
    place.join()
    assert len(NodeFolder(place.root / "machine").node_key.read_text().strip()) == 64


def test_a_place_that_was_linked_begins_a_recovering_store(place: Place) -> None:
    """Its neighbours remember its former store; cut off after the store was begun, it goes on."""
    place.known = True
    made = place.join()
    assert made.rebuilt
    folder = place.root / "machine"
    assert (folder / "store.db").exists()
    # As if it had died just before the rename.
    draft = folder.with_name("machine.joining")
    folder.rename(draft)
    (draft / "joining.json").write_text(
        json.dumps({"node_id": VILLAGE, "prepared": True, "store_begun": True})
    )
    assert place.join().rebuilt
    assert load_settings(folder).node_id == VILLAGE


def test_a_foreign_folder_is_never_touched(place: Place) -> None:
    """Beside or in place of what is to be made: refused before anything is sent."""
    beside = place.root / "machine.joining"
    beside.mkdir()
    (beside / "letters.txt").write_text("mine")
    with pytest.raises(JoinFolderError):
        place.join()
    assert [each.name for each in beside.iterdir()] == ["letters.txt"]
    place.join("first")
    with pytest.raises(JoinFolderError, match=VILLAGE):
        place.join("first")


def test_a_folder_of_another_join_is_kept(place: Place) -> None:
    """Two codes typed on one machine: the second names the first's node, and nothing is mixed."""
    draft = place.root / "machine.joining"
    draft.mkdir()
    said = json.dumps({"node_id": SIBLING, "prepared": True, "store_begun": False})
    (draft / "joining.json").write_text(said)
    with pytest.raises(JoinFolderError, match=SIBLING):
        place.join()
    assert (draft / "joining.json").read_text() == said


def test_an_invitation_ends(place: Place) -> None:
    """At its minute by the parent's clock, for the machine that joined too."""
    place.clock.ms += DAY_MS - 1
    place.child_clock.ms = place.clock.ms
    with pytest.raises(DoorUnreachableError):
        place.join(through=lambda line: Cut(line, sent=True))
    place.clock.ms += 1
    with pytest.raises(InvitationExpiredError) as raised:
        place.join()
    assert "2027-01-16" in raised.value.message
    assert place.standing()[0] == "used"


@pytest.mark.parametrize("years_ms", [TEN_YEARS_MS, -TEN_YEARS_MS], ids=["ahead", "behind"])
def test_a_parent_whose_clock_is_wrong_admits_nobody_and_says_so(
    place: Place, years_ms: int
) -> None:
    """Ahead, the invitation looks over; behind, as if made tomorrow. Set right, it serves."""
    place.clock.ms += years_ms
    expected = InvitationExpiredError if years_ms > 0 else JoinClockError
    place.restart()
    with pytest.raises(expected) as raised:
        place.join()
    assert "clock says" in raised.value.message
    place.clock.ms -= years_ms
    place.restart()
    place.join()


@pytest.mark.parametrize("years_ms", [TEN_YEARS_MS, -TEN_YEARS_MS], ids=["ahead", "behind"])
def test_a_child_whose_clock_is_wrong_is_told_both_times(place: Place, years_ms: int) -> None:
    """Its certificate would not hold now: no node is made, and once it is set the words serve."""
    place.child_clock.ms += years_ms
    with pytest.raises(JoinClockError) as raised:
        place.join()
    assert raised.value.message.count("says") == 2
    assert not place.is_made()
    place.child_clock.ms -= years_ms
    assert place.join().warning == ""


def test_clocks_that_differ_a_little_are_a_warning(place: Place) -> None:
    """Six minutes forbid nothing."""
    place.child_clock.ms += 6 * MINUTE_MS
    assert "clock" in place.join().warning


def test_a_code_that_was_taken_back_admits_nobody(place: Place) -> None:
    """Withdrawn, replaced, and withdrawn while the machine was stretching it."""

    class Meanwhile:
        """The operator takes the code back between the two calls."""

        def __init__(self, line: LocalDoor) -> None:
            self.certificate = line.certificate
            self._line = line

        def begin(self, node_id: str, nonce: bytes) -> Begun:
            begun = self._line.begin(node_id, nonce)
            assert place.invitations.withdraw(place.operator, VILLAGE)
            return begun

        def join(self, asked: JoinAsked) -> Joined:
            return self._line.join(asked)

    def meanwhile(line: LocalDoor) -> DoorCalls:
        return Meanwhile(line)

    with pytest.raises(InvitationWithdrawnError):
        place.join(through=meanwhile)
    assert not place.invitations.withdraw(place.operator, VILLAGE)
    place.restart()
    with pytest.raises(InvitationWithdrawnError):
        place.join()
    place.invite()
    place.join()
    assert [each.state for each in place.invitations.page("", 9)] == ["used", "withdrawn"]


def test_lists_page_by_page(place: Place) -> None:
    """Newest first, each once, with what became of it."""
    for _ in range(4):
        place.clock.ms += MINUTE_MS
        place.invite()
    first = place.invitations.page("", 2)
    rest = place.invitations.page(first[-1].invitation_id, 9)
    states = [each.state for each in (*first, *rest)]
    assert states == ["open", *["withdrawn"] * 4]
    assert len({each.invitation_id for each in (*first, *rest)}) == 5


def test_a_folder_that_is_empty_is_taken(place: Place) -> None:
    """As an operator makes it beforehand."""
    (place.root / "machine").mkdir()
    place.join()
    assert load_settings(place.root / "machine").node_id == VILLAGE


def test_what_was_open_in_a_store_that_was_put_back_is_void(place: Place) -> None:
    """A backup has forgotten who joined and what was guessed; it admits nobody with an old code."""
    place.store_epoch += 1
    place.restart()
    with pytest.raises(InvitationWithdrawnError):
        place.join()
    assert place.standing()[0] == "withdrawn"
    place.invite()
    place.join()
