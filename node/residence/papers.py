"""What travels of a move: the signed grant, pieces of a history, the new home's word that it holds.

Bytes only; who may say what is decided by those who read them. A paper that is not one raises and
is never half believed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from node.residence.errors import GrantInvalidError, HandoverInvalidError
from node.residence.homes import SignedGrant
from replication.core.codec import CODEC_JSON, decode_changes, encode_changes
from replication.core.model import RowChange
from replication.core.residence import Grant, KnownHome
from replication.errors import RemoteProtocolError

__all__ = [
    "GRANT",
    "GRANT_TAG",
    "HANDOVER",
    "PIECE_BYTES_MAX",
    "SETTLED",
    "Ask",
    "Piece",
    "Settled",
    "ask_in",
    "ask_out",
    "digest_of",
    "fingerprint",
    "grant_in",
    "grant_out",
    "grants_in",
    "grants_out",
    "home_in",
    "home_out",
    "piece_in",
    "piece_out",
    "pieces_of",
    "settled_in",
    "settled_out",
    "statement_of",
]

GRANT: Final = "residence.grant"
HANDOVER: Final = "residence.handover"
SETTLED: Final = "residence.settled"
GRANT_TAG: Final = b"fenhe-home-grant-1\0"
PIECE_BYTES_MAX: Final = 256 * 1024
PIECES_MAX: Final = 4096
FINGERPRINT_BYTES: Final = 8
_VERSION: Final = 1
_EPOCH_MAX: Final = 2**31
_ID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_NODE: Final = re.compile(r"[0-9]{1,16}")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_REASON_MAX: Final = 200


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of what one node holds of a resident.

    `whole`: the set is everything the sender holds; otherwise rows that came too late for it.
    `judged`: identity rows in it were found to be late edits by a home in between. `digest` is over
    all pieces of the set. `grant`: that of the move, which may come later by itself; None where the
    sender does not have it.
    """

    handover_id: str
    resident_id: str
    home_epoch: int
    number: int
    total: int
    digest: str
    whole: bool
    judged: bool
    rows: bytes
    grant: SignedGrant | None = None

    def changes(self) -> list[RowChange]:
        """The rows. Raises HandoverInvalidError."""
        try:
            return decode_changes(CODEC_JSON, self.rows)
        except RemoteProtocolError:
            raise HandoverInvalidError("a piece of a history cannot be read") from None


@dataclass(frozen=True, slots=True)
class Settled:
    """The new home's word: it and the node above it hold him. `held`: fingerprints of the rows."""

    resident_id: str
    home_epoch: int
    held: frozenset[bytes]


@dataclass(frozen=True, slots=True)
class Ask:
    """A question for a grant on its way up. `known`: the newest home that those below know."""

    resident_id: str
    to_node: str
    reason: str
    asked_by: str
    known: KnownHome | None


def statement_of(grant: Grant) -> bytes:
    """What is signed of a grant, after the tag."""
    said: dict[str, Any] = {
        "granted_at": grant.granted_at_ms,
        "granted_by": grant.granted_by,
        "from_node": grant.from_node,
        "home_epoch": grant.home_epoch,
        "home_node": grant.home_node,
        "resident_id": grant.resident_id,
        "version": _VERSION,
    }
    if grant.region_epoch:
        said["region_epoch"] = grant.region_epoch
    return _json(said)


def grant_out(signed: SignedGrant) -> bytes:
    """A grant with its proof."""
    return _json(
        {
            "statement": signed.statement.decode(),
            "signature": base64.b64encode(signed.signature).decode(),
            "chain": signed.chain_pem.decode(),
        }
    )


def grant_in(body: bytes) -> SignedGrant:
    """A grant as somebody says it, nothing proven yet.

    Raises:
        GrantInvalidError: It is none.
    """
    try:
        outer = json.loads(body)
        statement = outer["statement"].encode()
        said = json.loads(statement)
        grant = Grant(
            resident_id=_id(said["resident_id"]),
            home_epoch=_count(said["home_epoch"], _EPOCH_MAX),
            home_node=_node(said["home_node"]),
            from_node=_node(said["from_node"]),
            granted_by=_node(said["granted_by"]),
            granted_at_ms=_count(said["granted_at"], 2**53),
            region_epoch=_count(said.get("region_epoch", 0), _EPOCH_MAX),
        )
        signature = base64.b64decode(outer["signature"], validate=True)
        chain = outer["chain"].encode()
    except _BROKEN:
        raise GrantInvalidError("a grant cannot be read") from None
    if statement != statement_of(grant):
        raise GrantInvalidError("a grant is not written as grants are")
    return SignedGrant(grant, statement, signature, chain)


def grants_out(grants: Sequence[SignedGrant]) -> bytes:
    """Several grants, as an answer."""
    return _json([grant_out(signed).decode() for signed in grants])


def grants_in(body: bytes) -> list[SignedGrant]:
    """Several grants, nothing proven yet. Raises GrantInvalidError."""
    try:
        texts = [text.encode() for text in json.loads(body)]
    except _BROKEN:
        raise GrantInvalidError("an answer about grants cannot be read") from None
    return [grant_in(text) for text in texts]


def pieces_of(
    changes: Sequence[RowChange],
    resident_id: str,
    home_epoch: int,
    *,
    handover_id: str,
    whole: bool,
    judged: bool = False,
    grant: SignedGrant | None = None,
) -> list[Piece]:
    """A history in pieces of at most 256 KiB of rows (one row is never cut); at least one."""
    parts = list(_parts(list(changes)))
    digest = digest_of(parts)
    return [
        Piece(
            handover_id,
            resident_id,
            home_epoch,
            number,
            len(parts),
            digest,
            whole,
            judged,
            rows,
            grant,
        )
        for number, rows in enumerate(parts, start=1)
    ]


def digest_of(parts: Iterable[bytes]) -> str:
    """SHA-256 over the SHA-256 of every piece, in their order."""
    over = hashlib.sha256()
    for rows in parts:
        over.update(hashlib.sha256(rows).digest())
    return over.hexdigest()


def piece_out(piece: Piece) -> bytes:
    """A piece as a letter's body: a line about it, then its rows."""
    head = {
        "handover_id": piece.handover_id,
        "resident_id": piece.resident_id,
        "home_epoch": piece.home_epoch,
        "number": piece.number,
        "total": piece.total,
        "digest": piece.digest,
        "whole": piece.whole,
        "judged": piece.judged,
        "grant": grant_out(piece.grant).decode() if piece.grant else "",
        "version": _VERSION,
    }
    return _json(head) + b"\n" + piece.rows


def piece_in(body: bytes) -> Piece:
    """A piece. Raises HandoverInvalidError."""
    line, found, rows = body.partition(b"\n")
    try:
        said = json.loads(line)
        piece = Piece(
            handover_id=_id(said["handover_id"]),
            resident_id=_id(said["resident_id"]),
            home_epoch=_count(said["home_epoch"], _EPOCH_MAX),
            number=_count(said["number"], PIECES_MAX),
            total=_count(said["total"], PIECES_MAX),
            digest=_matched(said["digest"], _DIGEST),
            whole=said["whole"] is True,
            judged=said["judged"] is True,
            rows=rows,
            grant=grant_in(said["grant"].encode()) if said["grant"] else None,
        )
    except (*_BROKEN, GrantInvalidError):
        raise HandoverInvalidError("a piece of a history cannot be read") from None
    if not found or not 1 <= piece.number <= piece.total:
        raise HandoverInvalidError("a piece of a history is not one of its set")
    return piece


def fingerprint(change: RowChange) -> bytes:
    """Tells a version of a row from every other, whatever home it is said under."""
    about = (change.table, change.row_id, change.version.author_epoch, change.version.number)
    return hashlib.sha256(_json(list(about))).digest()[:FINGERPRINT_BYTES]


def settled_out(settled: Settled) -> bytes:
    """The new home's word as a letter's body."""
    head = {"resident_id": settled.resident_id, "home_epoch": settled.home_epoch}
    return _json({**head, "version": _VERSION}) + b"\n" + b"".join(sorted(settled.held))


def settled_in(body: bytes) -> Settled:
    """The new home's word. Raises HandoverInvalidError."""
    line, _, marks = body.partition(b"\n")
    try:
        said = json.loads(line)
        resident_id, epoch = _id(said["resident_id"]), _count(said["home_epoch"], _EPOCH_MAX)
    except _BROKEN:
        raise HandoverInvalidError("the new home's word cannot be read") from None
    if len(marks) % FINGERPRINT_BYTES:
        raise HandoverInvalidError("the new home's word is cut short")
    starts = range(0, len(marks), FINGERPRINT_BYTES)
    return Settled(
        resident_id, epoch, frozenset(marks[at : at + FINGERPRINT_BYTES] for at in starts)
    )


def ask_out(ask: Ask) -> bytes:
    """A question for a grant."""
    known = ask.known
    return _json(
        {
            "resident_id": ask.resident_id,
            "to_node": ask.to_node,
            "reason": ask.reason[:_REASON_MAX],
            "asked_by": ask.asked_by,
            "home_node": known.home_node if known else "",
            "home_epoch": known.home_epoch if known else 0,
        }
    )


def ask_in(body: bytes) -> Ask:
    """A question for a grant. Raises GrantInvalidError."""
    try:
        said = json.loads(body)
        known = None
        if said["home_node"]:
            known = KnownHome(_node(said["home_node"]), _count(said["home_epoch"], _EPOCH_MAX))
        return Ask(
            _id(said["resident_id"]),
            _node(said["to_node"]),
            _words(said["reason"]),
            _node(said["asked_by"]),
            known,
        )
    except _BROKEN:
        raise GrantInvalidError("a question for a grant cannot be read") from None


def home_out(known: KnownHome | None) -> bytes:
    """The newest home that a node knows."""
    home, epoch = (known.home_node, known.home_epoch) if known else ("", 0)
    return _json({"home_node": home, "home_epoch": epoch})


def home_in(body: bytes) -> KnownHome | None:
    """The newest home that a node says it knows; None: it knows none, or says what is no home."""
    try:
        said = json.loads(body)
        home = KnownHome(_node(said["home_node"]), _count(said["home_epoch"], _EPOCH_MAX))
    except _BROKEN:
        return None
    return home if home.home_epoch > 0 else None


_BROKEN: Final = (
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    RecursionError,
    binascii.Error,
)


def _parts(changes: list[RowChange]) -> Iterable[bytes]:
    encoded = encode_changes(changes)
    if len(encoded) <= PIECE_BYTES_MAX or len(changes) <= 1:
        yield encoded
        return
    middle = len(changes) // 2
    yield from _parts(changes[:middle])
    yield from _parts(changes[middle:])


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _matched(text: Any, shape: re.Pattern[str]) -> str:
    if not isinstance(text, str) or shape.fullmatch(text) is None:
        raise ValueError("not of this shape")
    return text


def _id(text: Any) -> str:
    return _matched(text, _ID)


def _node(text: Any) -> str:
    return _matched(text, _NODE)


def _words(text: Any) -> str:
    if not isinstance(text, str) or not text.encode():
        return ""
    return text[:_REASON_MAX]


def _count(number: Any, most: int) -> int:
    if type(number) is not int or not 0 <= number <= most:
        raise ValueError("not a number of this range")
    return number


Prove = Callable[[bytes, bytes, bytes, str], None]
"""(signed bytes, signature, chain, node): raises unless that node signed them."""
