"""Post: writes letters, opens those addressed here, hands them to the handler of their kind.

Everything happens in the caller's transaction: a letter is in the outbox exactly if the write that
it tells of is stored, and its effect at the addressee is there exactly if its receipt is in the
log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from sqlalchemy import Connection

from hierarchy_config.errors import FenheError
from hierarchy_config.hierarchy import Hierarchy
from hierarchy_config.model import NodeId
from node.clock import Clock, Ids, format_ms, parse_ms
from node.logs import get_logger
from node.security.certificates import certificate_hash, certificates_from_pem
from node.transit.attempts import attempted
from node.transit.chains import Chains
from node.transit.envelope import (
    Envelope,
    Examined,
    Header,
    opened,
    prove,
    read_envelope,
    write_open,
    write_sealed,
)
from node.transit.errors import (
    LetterInvalidError,
    LetterKeyOldError,
    LetterTooLargeError,
    TransitError,
)
from node.transit.handlers import LetterHandler, PassingHandler, ReceiptHandler
from node.transit.inbox import Inbox
from node.transit.keys import KeyRing, NodeVerifier, OwnKey, key_name
from node.transit.model import (
    CODEC_OPEN,
    CODEC_SEALED,
    RECEIPT,
    Letter,
    Proof,
    SentLetter,
    Subject,
)
from node.transit.outbox import BodySealer, Outbox
from node.transit.owed import UNPLACED, Owed, OwedReceipts
from node.transit.receipts import receipt_in, receipt_out
from node.transit.tables import TransitTables
from replication.changelog import ChangeLog, NewEntry
from replication.core.mailbox import (
    Arrival,
    PostState,
    arrived,
    is_due,
    key_missing,
    posted,
    receipted,
    sent,
)
from replication.core.model import SCHEMA_VERSION, Form, Lane, LogEntry

__all__ = ["BODY_BYTES_MAX", "Examined", "LetterHandler", "Post", "ReceiptHandler"]

BODY_BYTES_MAX: Final = 2 << 20
"""Of one letter, clear."""
_NO_HANDLER: Final = "LETTER_KIND_UNKNOWN"


class Post:
    """Letters of one node. `keys` and `verifier` None: it relays, and neither seals nor opens."""

    def __init__(
        self,
        tables: TransitTables,
        *,
        node_id: NodeId,
        hierarchy: Hierarchy,
        changelog: ChangeLog,
        sealer: BodySealer,
        clock: Clock,
        ids: Ids,
        keys: KeyRing | None = None,
        verifier: NodeVerifier | None = None,
    ) -> None:
        self.node_id = node_id
        self.outbox = Outbox(tables, node_id, sealer)
        self.inbox = Inbox(tables)
        self.chains = Chains(tables, verifier, clock=clock)
        self.owed = OwedReceipts(tables, changelog, node_id=node_id, hierarchy=hierarchy)
        self._hierarchy = hierarchy
        self._changelog = changelog
        self._clock = clock
        self._ids = ids
        self._keys = keys
        self._verifier = verifier
        self._handlers: dict[str, LetterHandler] = {}
        self._passing: dict[str, PassingHandler] = {}
        self._on_receipt: dict[str, ReceiptHandler] = {}
        self._gathered: dict[int, list[NewEntry]] = {}
        self._log = get_logger("transit")

    # -- what other rooms use -------------------------------------------------------------------

    def on_letter(self, kind: str, handler: LetterHandler) -> None:
        """Take letters of a kind that are addressed here, in the transaction that applies them.

        The sender is proven. What the handler refuses waits in the quarantine and is told to the
        author; so is a FenheError that no retry mends. What it wrote before it refused or raised is
        undone. What it puts into the log goes through `log`.
        """
        self._handlers[kind] = handler

    def on_passing(self, kind: str, handler: PassingHandler) -> None:
        """See open letters of a kind on their way through here, their sender proven.

        A letter that the handler raises a FenheError for goes on all the same; what the handler
        wrote before is undone.
        """
        self._passing[kind] = handler

    def on_receipt(self, kind: str, handler: ReceiptHandler) -> None:
        """Learn what the addressee said of a letter of a kind that was written here."""
        self._on_receipt[kind] = handler

    def send(
        self,
        connection: Connection,
        *,
        to: NodeId,
        kind: str,
        body: bytes,
        lane: Lane = Lane.BULK,
        subject: Subject | Sequence[Subject] | None = None,
        open_letter: bool = False,
    ) -> str:
        """Put a letter into the outbox, and into the log if it can be sealed now; its id.

        Args:
            connection: The transaction in which the letter becomes true.
            to: Any node of the region; a letter to this node is handled at once.
            kind: Lower-case letters, digits, dots, hyphens; at most 32.
            body: At most 2 MiB.
            lane: Which lane it travels in.
            subject: The row versions it carries, for `fenhe record where`; stays here.
            open_letter: Readable on its way; signed all the same.

        Raises:
            NodeUnknownError: The region has no such node.
            LetterTooLargeError: The body is too long.
        """
        self._hierarchy.entry(to)
        if len(body) > BODY_BYTES_MAX:
            raise LetterTooLargeError(f"a letter may have {BODY_BYTES_MAX} bytes")
        now_ms = self._clock.now_ms()
        subjects = (subject,) if isinstance(subject, Subject) else tuple(subject or ())
        letter = SentLetter(
            letter_id=self._ids.mint(),
            to=to,
            kind=kind,
            lane=lane,
            written_at=format_ms(now_ms),
            open_letter=open_letter,
            parcel=posted(now_ms),
            key_id="",
            body=body,
            subjects=subjects,
        )
        if to == self.node_id:
            self.outbox.add(connection, letter)
            self._to_itself(connection, letter, now_ms)
            return letter.letter_id
        self.outbox.add(connection, self._posted(connection, letter, now_ms) or letter)
        return letter.letter_id

    def redirect(self, connection: Connection, letter_id: str, to: NodeId) -> None:
        """Address a letter that was not accepted to another node, under the same id."""
        self._hierarchy.entry(to)
        letter = self.outbox.get(connection, letter_id, locked=True)
        if letter is None or letter.body is None:
            return
        now_ms = self._clock.now_ms()
        parcel = replace(letter.parcel, state=PostState.WAITING_KEY, next_ms=now_ms)
        moved = replace(letter, to=to, parcel=parcel, key_id="")
        if to == self.node_id:
            self._to_itself(connection, moved, now_ms)
            return
        self.outbox.save(connection, self._posted(connection, moved, now_ms) or moved)

    # -- the log --------------------------------------------------------------------------------

    def log(self, connection: Connection, entries: Sequence[NewEntry]) -> None:
        """Append to the change log, at the end of the transaction if somebody is `gathering`."""
        gathered = self._gathered.get(id(connection))
        if gathered is None:
            self._changelog.append(connection, entries)
        else:
            gathered.extend(entries)

    @contextmanager
    def gathering(self, connection: Connection) -> Iterator[list[NewEntry]]:
        """Keep what is logged meanwhile, for one append that ends the transaction."""
        outer = self._gathered.get(id(connection))
        gathered = self._gathered[id(connection)] = []
        try:
            yield gathered
        finally:
            del self._gathered[id(connection)]
            if outer is not None:
                self._gathered[id(connection)] = outer

    def attempt(self, connection: Connection, work: Callable[[], str]) -> str:
        """Let `work` try; if it refuses, neither its rows nor its entries of the log are left.

        Returns "" or the code of its refusal; a FenheError that no retry mends is one.
        """
        with self.gathering(connection) as logged:
            code = attempted(connection, work)
        if not code:
            self.log(connection, logged)
        return code

    # -- the author's side ----------------------------------------------------------------------

    def go_on(self, connection: Connection, letter_id: str) -> NodeId | None:
        """Send a letter of the outbox (again) if it is due; the addressee if his key is wanting."""
        letter = self.outbox.get(connection, letter_id, locked=True)
        now_ms = self._clock.now_ms()
        if letter is None or letter.body is None or not is_due(letter.parcel.next_ms, now_ms):
            return None
        if letter.to == self.node_id:
            self._to_itself(connection, letter, now_ms)
            return None
        put = self._posted(connection, letter, now_ms)
        if put is None:
            return letter.to
        self.outbox.save(connection, put)
        return None

    def postpone(self, connection: Connection, letter_id: str) -> None:
        """Note that the addressee's key was not to be had."""
        letter = self.outbox.get(connection, letter_id, locked=True)
        if letter is None or letter.parcel.next_ms is None:
            return
        written_ms = parse_ms(letter.written_at)
        parcel = key_missing(letter.parcel, written_ms, self._clock.now_ms())
        self.outbox.save(connection, replace(letter, parcel=parcel))

    def own(self) -> OwnKey | None:
        """This node's key as it is now; None if it cannot be read."""
        if self._keys is None:
            return None
        try:
            return self._keys.own()
        except (FenheError, OSError) as error:
            self._log.warning("own key cannot be read", reason=type(error).__name__)
            return None

    def _posted(self, connection: Connection, letter: SentLetter, now_ms: int) -> SentLetter | None:
        """Seal a letter and put it into the log; None if a key is wanting."""
        own = self.own()
        key = None if letter.open_letter else self.chains.key_of(connection, letter.to)
        if own is None or (key is None and not letter.open_letter):
            return None
        header = Header(
            letter.letter_id,
            self.node_id,
            letter.to,
            letter.kind,
            letter.lane.value,
            letter.written_at,
            letter.parcel.attempts + 1,
        )
        body = letter.body or b""
        data = (
            write_open(header, body, own) if key is None else write_sealed(header, body, own, key)
        )
        self._append(connection, header, data, CODEC_OPEN if key is None else CODEC_SEALED, now_ms)
        return replace(
            letter,
            parcel=sent(letter.parcel, now_ms),
            key_id="" if key is None else key_name(key),
        )

    def _append(
        self, connection: Connection, header: Header, data: bytes, codec: int, now_ms: int
    ) -> None:
        entry = NewEntry(
            origin_node=self.node_id,
            origin_epoch=self._changelog.store_epoch,
            origin_sequence=None,
            lane=Lane(header.lane),
            home_node=header.to,
            form=Form.SEALED,
            codec=codec,
            schema_version=SCHEMA_VERSION,
            committed_at_ms=now_ms,
            row_count=1,
            rows=data,
        )
        self.log(connection, [entry])

    def _to_itself(self, connection: Connection, letter: SentLetter, now_ms: int) -> None:
        handed = Letter(
            letter.letter_id,
            self.node_id,
            self.node_id,
            letter.kind,
            letter.lane,
            letter.written_at,
            letter.body or b"",
            1,
        )
        outcome = self._handled(connection, handed)
        self.inbox.save(connection, handed, outcome, now_ms)
        self._receipted(connection, letter, outcome, Proof(now_ms, b"", ""))

    # -- the addressee's side -------------------------------------------------------------------

    def examine(self, entry: LogEntry) -> Examined:
        """Look at a letter outside the transaction: its parts, and if it is for here all of it."""
        try:
            envelope = read_envelope(entry.codec, entry.rows)
            head = envelope.header
            if (head.sender, head.to, head.lane) != (
                entry.origin_node,
                entry.home_node,
                entry.lane.value,
            ):
                raise LetterInvalidError("a letter's header does not fit the entry it came in")
        except LetterInvalidError as error:
            return Examined(None, cause=error.code)
        for_here = head.to == self.node_id
        seen = envelope.codec == CODEC_OPEN and head.kind in self._passing
        if not for_here and not seen:
            return Examined(envelope)
        if self._verifier is None:
            return Examined(envelope, cause=LetterKeyOldError.code if for_here else "")
        try:
            prove(envelope, self._verifier)
        except TransitError as error:
            return Examined(envelope, cause=error.code)
        try:
            return Examined(envelope, opened(envelope, self.own() if for_here else None))
        except TransitError as error:
            # Proven: the author may be told why.
            return Examined(envelope, envelope.letter(b""), error.code)

    def passes(self, connection: Connection, examined: Examined) -> None:
        """Show an open letter on its way to whoever wants to see its kind."""
        letter = examined.letter
        if letter is None or examined.cause or letter.kind not in self._passing:
            return
        see = self._passing[letter.kind]

        def seen() -> str:
            see(connection, letter)
            return ""

        code = self.attempt(connection, seen)
        if code:
            # The addressee judges it. A relay that refused the batch would stop the lane for ever.
            said = {"letter": letter.letter_id, "sender": letter.sender, "code": code}
            self._log.warning("a letter on its way was not believed", **said)

    def take(self, connection: Connection, examined: Examined) -> str:
        """Handle a letter addressed here and put its receipt into the log; "" or a cause.

        A cause that the author cannot mend by sending again is for the quarantine.
        """
        letter = examined.letter
        if letter is None:
            return examined.cause
        now_ms = self._clock.now_ms()
        if letter.kind == RECEIPT:
            return examined.cause or self.attempt(
                connection, lambda: self._take_receipt(connection, examined, letter)
            )
        before = self.inbox.outcome(connection, letter.sender, letter.letter_id)
        outcome = examined.cause
        again = arrived(before) is Arrival.ANSWER_AGAIN
        if again:
            outcome = ""
            if self.owed.is_open(connection, letter.sender, letter.letter_id):
                return ""
        elif not outcome:
            outcome = self._handled(connection, letter)
        waits = not again and not outcome and self.owed.waits(letter.sender)
        if outcome != LetterKeyOldError.code:
            # The time after the handler's: what it logged lies before.
            self.inbox.save(
                connection,
                letter,
                outcome,
                self._clock.now_ms(),
                answer_after=UNPLACED if waits else None,
            )
        if not waits:
            owed = Owed(letter.sender, letter.letter_id, letter.lane, UNPLACED)
            self._answer(connection, owed, outcome, now_ms)
        waits_already = bool(before) or outcome == LetterKeyOldError.code
        return "" if waits_already else outcome

    def _handled(self, connection: Connection, letter: Letter) -> str:
        handler = self._handlers.get(letter.kind)
        if handler is None:
            return _NO_HANDLER
        return self.attempt(connection, lambda: handler(connection, letter))

    def answer_owed(self, connection: Connection, delivered: Callable[[Lane], int]) -> int:
        """Send receipts whose rows the parent has by now; how many.

        `delivered`: up to where the parent holds a lane.
        """
        due = self.owed.due(connection, delivered)
        for each in due:
            if self.owed.settle(connection, each):
                self._answer(connection, each, "", self._clock.now_ms())
        return len(due)

    def _answer(self, connection: Connection, owed: Owed, outcome: str, now_ms: int) -> None:
        own = self.own()
        if own is None:
            raise TransitError("a receipt cannot be signed: this node's key cannot be read")
        at = format_ms(now_ms)
        # In the lane of what the letter brought, behind it: whoever holds the receipt knows that
        # this node's parent holds the rows, and this node may lose them.
        header = Header(
            self._ids.mint(), self.node_id, owed.sender, RECEIPT, owed.lane.value, at, 1
        )
        data = write_open(header, receipt_out(owed.letter_id, outcome, at), own)
        self._append(connection, header, data, CODEC_OPEN, now_ms)

    def _take_receipt(self, connection: Connection, examined: Examined, receipt: Letter) -> str:
        said = receipt_in(receipt.body)
        if said is None or examined.envelope is None:
            return LetterInvalidError.code
        letter_id, outcome = said
        letter = self.outbox.get(connection, letter_id, locked=True, with_body=False)
        if letter is None or letter.to != receipt.sender:
            # An outbox put back from a backup, or a letter that was addressed to another by now.
            self._log.info("receipt for no letter", letter=letter_id, sender=receipt.sender)
            return ""
        signature = examined.envelope.signature
        certificate = _certificate_id(examined.envelope)
        self._receipted(
            connection, letter, outcome, Proof(self._clock.now_ms(), signature, certificate)
        )
        return ""

    def _receipted(
        self, connection: Connection, letter: SentLetter, outcome: str, proof: Proof
    ) -> None:
        before = letter.parcel
        parcel = receipted(before, outcome, proof.at_ms)
        if outcome == LetterKeyOldError.code:
            self.chains.forget(connection, letter.to, letter.key_id)
        confirmed = parcel.state is PostState.CONFIRMED
        if before.state is PostState.CONFIRMED:
            return
        kept = replace(letter, parcel=parcel, proof=proof if confirmed else letter.proof)
        self.outbox.save(connection, kept)
        handler = self._on_receipt.get(letter.kind)
        if handler is not None and parcel.state in (PostState.CONFIRMED, PostState.REFUSED):
            handler(connection, kept, outcome)


def _certificate_id(envelope: Envelope) -> str:
    return certificate_hash(certificates_from_pem(envelope.chain_pem)[0])
