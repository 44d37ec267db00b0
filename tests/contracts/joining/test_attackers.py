"""Whoever stands in between, guesses, replays or lies gets nothing, and no node is made."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import pytest

from hierarchy_config.errors import FenheError
from node.joining.answer import JoinAnswer, read_answer, write_answer
from node.joining.child import DoorCalls
from node.joining.code import new_code
from node.joining.errors import (
    DoorBusyError,
    InvitationRefusedError,
    InvitationSpentError,
    InvitationUsedError,
    JoinAnswerError,
    JoinProofError,
    JoinStretchError,
)
from node.joining.invitations import WRONG_PROOFS_MAX, JoinKeys
from node.joining.model import Begun, JoinAsked, Joined
from node.joining.proof import STRETCH, StretchCost
from tests.contracts.joining.place import CODE, Liar, LocalDoor, Place
from tests.unit.security.region import SIBLING, TOWNSHIP, VILLAGE

Change = Callable[[bytes], bytes]
Said = TypeVar("Said", Begun, JoinAsked, Joined)


@dataclass
class Relay:
    """Passes everything on and alters one field of one message. `message`.`part`: which."""

    line: LocalDoor
    message: str
    part: str
    change: Callable[[Any], Any]

    @property
    def certificate(self) -> bytes:
        """It shows one of its own where that is what it alters."""
        seen = self.line.certificate
        return self.change(seen) if self.message == "certificate" else seen

    def begin(self, node_id: str, nonce: bytes) -> Begun:
        asked: dict[str, Any] = {"node_id": node_id, "nonce": nonce}
        if self.message == "begin":
            asked[self.part] = self.change(asked[self.part])
        begun = self.line.begin(asked["node_id"], asked["nonce"])
        return self._altered("begun", begun)

    def join(self, asked: JoinAsked) -> Joined:
        return self._altered("joined", self.line.join(self._altered("join", asked)))

    def _altered(self, message: str, said: Said) -> Said:
        if message != self.message:
            return said
        return replace(said, **{self.part: self.change(getattr(said, self.part))})


def first_bit(said: bytes) -> bytes:
    """The first bit turned."""
    return bytes([said[0] ^ 1]) + said[1:]


def last_bit(said: bytes) -> bytes:
    """The last bit turned."""
    return said[:-1] + bytes([said[-1] ^ 1])


def middle(said: bytes) -> bytes:
    """A byte in the middle turned."""
    at = len(said) // 2
    return said[:at] + bytes([said[at] ^ 0x20]) + said[at + 1 :]


def cut(said: bytes) -> bytes:
    """The last byte missing."""
    return said[:-1]


def emptied(_: bytes) -> bytes:
    """Nothing."""
    return b""


def longer(said: bytes) -> bytes:
    """A byte more."""
    return said + b"\n"


_BYTES = (
    ("begin", "nonce"),
    ("begun", "salt"),
    ("begun", "nonce"),
    ("join", "parent_nonce"),
    ("join", "tls_request"),
    ("join", "authority_request"),
    ("join", "proof"),
    ("join", "possession"),
    ("joined", "answer"),
    ("joined", "proof"),
    ("certificate", ""),
)
_CHANGES: tuple[Change, ...] = (first_bit, last_bit, middle, cut, emptied, longer)
_COSTS = (
    StretchCost(8, 1, 1),
    StretchCost(STRETCH.memory_kib - 1, 3, 1),
    StretchCost(STRETCH.memory_kib, 2, 1),
    StretchCost(STRETCH.memory_kib, 3, 2),
    StretchCost(1 << 30, 3, 1),
    StretchCost(STRETCH.memory_kib, 1 << 20, 1),
    StretchCost(0, 0, 0),
    StretchCost(STRETCH.memory_kib + 8, 3, 1),
)
ALTERED: list[tuple[str, str, Callable[[Any], Any]]] = [
    *((message, part, change) for message, part in _BYTES for change in _CHANGES),
    *(("begun", "cost", lambda _, cost=cost: cost) for cost in _COSTS),
    *((message, "node_id", lambda _: SIBLING) for message in ("begin", "join")),
    *((message, "node_id", lambda _: "") for message in ("begin", "join")),
]


def test_no_altered_message_yields_anything(place: Place) -> None:
    """Seventy-eight ways to alter one field: no node is made, and no certificate leaves for others.

    Where the request was whole the invitation may be bound to the machine's own keys by then; the
    machine joins with them as soon as nobody stands in between.
    """
    assert len(ALTERED) >= 40
    for number, (message, part, change) in enumerate(ALTERED):
        place.invite()
        machine = f"machine {number}"
        with pytest.raises(FenheError) as raised:
            place.join(machine, through=lambda line: Relay(line, message, part, change))  # noqa: B023
        assert not place.is_made(machine), (message, part, change)
        assert place.standing()[0] == ("used" if message == "joined" else "open"), raised.value
        assert place.standing()[1] <= 1
        if number % 8 == 0:
            place.join(machine)
            assert place.is_made(machine)


@pytest.mark.parametrize("cost", _COSTS[:-1], ids=str)
def test_a_door_that_asks_for_cheap_guesses_gets_no_proof(place: Place, cost: StretchCost) -> None:
    """With one proof under weak parameters the code could be guessed at leisure."""
    line = place.line()
    with pytest.raises(JoinStretchError):
        place.join(through=lambda _: Relay(line, "begun", "cost", lambda _: cost))
    assert line.asked == []


def test_a_relay_that_ends_tls_is_found(place: Place) -> None:
    """It shows a certificate of its own; the parent hears other words, and counts no guess."""
    with pytest.raises(JoinProofError):
        place.join(through=lambda line: Relay(line, "certificate", "", lambda _: b"a relay's own"))
    assert place.standing() == ("open", 0)


def test_a_proof_is_good_once(place: Place) -> None:
    """Replayed as it was, and in a new conversation: no certificates, and no guess is counted."""
    line = place.line()
    place.join(through=lambda _: line)
    old = line.asked[0]
    with pytest.raises(DoorBusyError):
        line.join(old)
    begun = line.begin(VILLAGE, os.urandom(32))
    with pytest.raises(JoinProofError):
        line.join(replace(old, parent_nonce=begun.nonce))
    assert place.standing() == ("used", 0)


def test_the_code_is_useless_with_other_keys(place: Place) -> None:
    """Another machine with the right code, during and after: refused, and told that it was used."""
    place.join("first")
    with pytest.raises(InvitationUsedError):
        place.join("second")
    assert not place.is_made("second")
    with pytest.raises(InvitationUsedError):
        place.invitations.bind(place.invitations.page("", 1)[0].invitation_id, JoinKeys("a", "b"))


def test_five_wrong_codes_end_an_invitation(place: Place) -> None:
    """Counted durably: a restart gives no sixth guess, and the right code is told why."""
    for number in range(WRONG_PROOFS_MAX):
        place.restart()
        with pytest.raises(InvitationRefusedError) as raised:
            place.join(f"guess {number}", code=new_code(VILLAGE, os.urandom))
        assert raised.value.code == "JOIN_REFUSED"
        assert place.standing()[1] == number + 1
    place.restart()
    with pytest.raises(InvitationSpentError):
        place.join()
    with pytest.raises(InvitationRefusedError):
        place.join("guess", code=new_code(VILLAGE, os.urandom))
    assert place.standing() == ("spent", WRONG_PROOFS_MAX)
    assert not place.is_made()
    refused = [each for each in place.audited() if each[1:] == ("join", "refused")]
    assert len(refused) == WRONG_PROOFS_MAX


def test_guesses_at_once_are_all_counted(place: Place) -> None:
    """Twenty side by side count as they would one after the other: five, and none gets through."""
    invitation_id = place.invitations.page("", 1)[0].invitation_id

    def guess(_: int) -> str:
        try:
            place.invitations.check(invitation_id, lambda _: False, JoinKeys("a", "b"))
        except InvitationRefusedError as error:
            return error.code
        return "through"

    with ThreadPoolExecutor(4) as threads:
        assert set(threads.map(guess, range(20))) == {"JOIN_REFUSED"}
    assert place.standing() == ("spent", WRONG_PROOFS_MAX)


def test_an_unknown_code_and_a_wrong_one_look_alike(place: Place) -> None:
    """Who tries cannot tell whether a place is invited: same salt each time, same words."""
    said = []
    for node in (VILLAGE, SIBLING, "999999"):
        code = new_code(node, os.urandom)  # type: ignore[arg-type]
        with pytest.raises(InvitationRefusedError) as raised:
            place.join(f"of {node}", code=code)
        said.append((raised.value.code, raised.value.message, raised.value.hint))
        line = place.line()
        first, second = (line.begin(node, os.urandom(32)) for _ in range(2))
        assert (first.salt, first.cost) == (second.salt, second.cost)
        assert len(first.salt) == 16
    assert len(set(said)) == 1


def test_who_does_not_know_the_code_cannot_answer(place: Place) -> None:
    """A machine that plays the parent hears requests and a proof; what it answers is not used."""

    class Impostor:
        certificate = b"its own"

        def begin(self, node_id: str, nonce: bytes) -> Begun:
            return Begun(os.urandom(16), STRETCH, os.urandom(32))

        def join(self, asked: JoinAsked) -> Joined:
            return Joined(b"{}", asked.proof)

    with pytest.raises(JoinProofError):
        place.join(through=lambda _: Impostor())
    assert not place.is_made()


def lies(**changed: Any) -> Change:
    """An answer with some fields changed."""
    return lambda raw: write_answer(replace(read_answer(raw), **changed))


def swapped(raw: bytes) -> bytes:
    """The two chains exchanged."""
    answer: JoinAnswer = read_answer(raw)
    return write_answer(
        replace(answer, tls_chain=answer.authority_chain, authority_chain=answer.tls_chain)
    )


@pytest.mark.parametrize(
    "change",
    [
        lies(node_id=SIBLING),
        lies(parent_id=SIBLING),
        lies(tls_chain=""),
        lies(authority_chain="nonsense"),
        lies(root=""),
        lies(region_text="nodes: ["),
        lies(parent_address="no address"),
        swapped,
        lambda raw: b"",
        lambda raw: raw[: len(raw) // 2],
        lambda raw: raw[:-1],
        lambda raw: raw.replace(b'"at_ms":', b'"at_ms":"soon","was":'),
        lambda raw: raw.replace(b'"version":1', b'"version":2'),
        lambda raw: b"[" * 100_000,
    ],
)
def test_a_parent_that_lies_makes_no_node(place: Place, change: Change) -> None:
    """Truncated, of another node, under another root: proven and refused; the truth serves."""

    def lying(line: LocalDoor) -> DoorCalls:
        return Liar(line, change)

    with pytest.raises(JoinAnswerError) as raised:
        place.join(through=lying)
    assert raised.value.hint
    assert not place.is_made()
    assert place.join().parent_id == TOWNSHIP


def test_nothing_that_is_stored_holds_the_code(place: Place) -> None:
    """Neither the code nor what it was stretched to is in the invitation or in the audit."""
    place.join()
    assert place.engine.dialect.name in {"sqlite", "mysql", "mariadb"}
    with place.engine.connect() as connection:
        rows = [
            *connection.exec_driver_sql("SELECT * FROM invitations").all(),
            *connection.exec_driver_sql("SELECT * FROM audit").all(),
        ]
    for row in rows:
        for value in row:
            text = value if isinstance(value, bytes) else str(value).encode()
            assert CODE.secret.encode() not in text
