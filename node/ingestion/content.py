"""Contents: what came, kept as it came, so that it can be read again under a better mapping.

A content is cut into pieces of 1 MiB; each is compressed, sealed and written in a transaction of
its own, so an upload goes on where it stopped. Its id is a keyed digest of its SHA-256: whoever has
the database learns neither what it was nor that another node has the same.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from typing import Final

import zstandard
from sqlalchemy import Connection, bindparam, delete, insert, select, update

from node.clock import Clock
from node.ingestion.errors import ContentIncompleteError
from node.ingestion.tables import IntakeTables
from node.security.sealing import cell_aad
from node.storage.context import StoreContext
from node.storage.tables import INTAKE

__all__ = ["PIECE_BYTES", "Content", "ContentStream", "Contents", "content_id_of"]

PIECE_BYTES: Final = 1 << 20
_LEVEL: Final = 3
_T: Final[IntakeTables] = INTAKE
_PIECE: Final = select(_T.pieces.c.body).where(
    _T.pieces.c.content_id == bindparam("content"), _T.pieces.c.number == bindparam("number")
)


@dataclass(frozen=True, slots=True)
class Content:
    """A content as far as it is here."""

    content_id: str
    size: int
    pieces: int
    arrived: int
    name: str

    @property
    def is_whole(self) -> bool:
        """Whether it can be read."""
        return self.arrived >= self.pieces


def content_id_of(store: StoreContext, sha256: str) -> str:
    """The id of the content with that SHA-256, hexadecimal."""
    return store.blind_index.index("fenhe.intake.content", sha256)


class Contents:
    """Keeps contents; blocks on the database."""

    def __init__(self, store: StoreContext, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def announce(self, sha256: str, size: int, name: str) -> Content:
        """Make room for a content, or find the one that is here already."""
        content_id = content_id_of(self._store, sha256)

        def work(connection: Connection) -> Content:
            found = self._load(connection, content_id)
            if found is not None:
                return found
            pieces = -(-size // PIECE_BYTES)
            sealed = self._store.cells.seal_cell(
                _T.contents.name, "name", content_id, name or "(no name)"
            )
            connection.execute(
                insert(_T.contents).values(
                    content_id=content_id,
                    size=size,
                    pieces=pieces,
                    arrived=0,
                    name=sealed,
                    created_at=self._clock.now_ms(),
                )
            )
            return Content(content_id, size, pieces, 0, name)

        return self._store.transactions.write(work)

    def load(self, content_id: str) -> Content | None:
        """What is known of a content."""
        return self._store.transactions.read(lambda c: self._load(c, content_id))

    def put_piece(self, content: Content, number: int, data: bytes) -> Content:
        """Keep a piece, durably; one that is here already is passed over.

        Raises:
            ContentIncompleteError: It is not the next piece, or not of the size that was announced.
        """
        expected = min(PIECE_BYTES, content.size - number * PIECE_BYTES)
        if len(data) != expected or not 0 <= number < content.pieces:
            raise ContentIncompleteError(f"piece {number} is not as announced")
        packed = zstandard.ZstdCompressor(level=_LEVEL).compress(data)
        sealer = self._store.cells.sealer_of(_T.pieces.name)
        place = f"{content.content_id}:{number}"
        aad = cell_aad(self._store.node_id, _T.pieces.name, "body", place)

        def work(connection: Connection) -> Content:
            held = self._load(connection, content.content_id)
            if held is None or number > held.arrived:
                raise ContentIncompleteError(f"piece {number} came before the one before it")
            if number < held.arrived:
                return held
            connection.execute(
                insert(_T.pieces).values(
                    content_id=content.content_id, number=number, body=sealer.seal(packed, aad)
                )
            )
            connection.execute(
                update(_T.contents)
                .where(_T.contents.c.content_id == content.content_id)
                .values(arrived=number + 1)
            )
            return Content(held.content_id, held.size, held.pieces, number + 1, held.name)

        return self._store.transactions.write(work)

    def verify(self, content: Content) -> None:
        """Read it once through and compare its digest.

        Raises:
            ContentIncompleteError: It is not what was announced.
        """
        digest = hashlib.sha256()
        stream = self.open(content)
        while data := stream.read(PIECE_BYTES):
            digest.update(data)
        if content_id_of(self._store, digest.hexdigest()) != content.content_id:
            raise ContentIncompleteError("the content is not the one that was announced")

    def discard(self, content: Content) -> None:
        """Forget the pieces of a content that is not what was announced."""

        def work(connection: Connection) -> None:
            for table in (_T.pieces, _T.contents):
                connection.execute(delete(table).where(table.c.content_id == content.content_id))

        self._store.transactions.write(work)

    def open(self, content: Content) -> ContentStream:
        """The bytes, seekable; one piece is in memory at a time."""
        return ContentStream(self._store, content)

    def _load(self, connection: Connection, content_id: str) -> Content | None:
        t = _T.contents
        row = connection.execute(select(t).where(t.c.content_id == content_id)).mappings().first()
        if row is None:
            return None
        name = self._store.cells.open_cell(t.name, "name", content_id, bytes(row["name"]))
        return Content(content_id, row["size"], row["pieces"], row["arrived"], str(name))


class ContentStream(io.RawIOBase):
    """A kept content as a binary stream."""

    def __init__(self, store: StoreContext, content: Content) -> None:
        self._store = store
        self._content = content
        self._at = 0
        self._held: tuple[int, bytes] = (-1, b"")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._content.size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        number, start = divmod(self._at, PIECE_BYTES)
        if self._at >= self._content.size or not view:
            return 0
        data = self._piece(number)[start : start + len(view)]
        view[: len(data)] = data
        self._at += len(data)
        return len(data)

    def read(self, size: int | None = -1, /) -> bytes:
        """Up to `size` bytes: fewer only at the end."""
        wanted = self._content.size - self._at if size is None or size < 0 else size
        parts: list[bytes] = []
        while wanted > 0 and self._at < self._content.size:
            number, start = divmod(self._at, PIECE_BYTES)
            data = self._piece(number)[start : start + wanted]
            if not data:
                raise ContentIncompleteError(f"piece {number} is shorter than it was")
            parts.append(data)
            self._at += len(data)
            wanted -= len(data)
        return b"".join(parts)

    def _piece(self, number: int) -> bytes:
        if self._held[0] == number:
            return self._held[1]
        asked = {"content": self._content.content_id, "number": number}
        sealed = self._store.transactions.read(lambda c: c.execute(_PIECE, asked).scalar())
        if sealed is None:
            raise ContentIncompleteError(f"piece {number} is not here")
        place = f"{self._content.content_id}:{number}"
        aad = cell_aad(self._store.node_id, _T.pieces.name, "body", place)
        packed = self._store.cells.sealer_of(_T.pieces.name).open(bytes(sealed), aad)
        data = zstandard.ZstdDecompressor().decompress(packed, max_output_size=PIECE_BYTES)
        self._held = (number, data)
        return data
