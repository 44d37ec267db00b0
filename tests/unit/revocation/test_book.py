"""What counts, since when, and for whom; calls that are open while a key is revoked."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from itertools import permutations
from pathlib import Path

import pytest

from hierarchy_config import NodeId
from node.clock import format_ms
from node.revocation.book import RevokedBook
from node.revocation.entries import Entry, Target, Word, sign_entry
from node.security.authority import create_region
from node.security.certificates import certificates_from_pem, private_key_from_pem
from node.security.errors import PeerRevokedError, SignatureInvalidError
from node.security.folders import NodeFolder
from node.security.former import key_digest
from node.security.key_files import read_secret
from node.security.signatures import Signer, verify_chain
from node.services.open_calls import OpenCalls
from node.transit.envelope import Header, prove, read_envelope, write_open
from node.transit.errors import LetterSignatureError
from node.transit.keys import FolderKeys, NodeVerifier
from node.transit.model import CODEC_OPEN
from replication.core.model import Lane
from tests.contracts.joining.place import HIERARCHY, START_MS
from tests.unit.security.region import CITY, COUNTY, SIBLING, TOWNSHIP, VILLAGE

NOW = datetime.fromtimestamp(START_MS / 1000, UTC)
HOUR_MS = 3_600_000


class Folders:
    """Data folders of a small region."""

    def __init__(self, root: Path) -> None:
        self.paths = create_region(root, HIERARCHY, NOW)
        self.root_pem = NodeFolder(self.paths[CITY]).tls.root.read_bytes()

    def chain_pem(self, node: NodeId) -> bytes:
        return NodeFolder(self.paths[node]).tls.chain.read_bytes()

    def signer(self, node: NodeId) -> Signer:
        files = NodeFolder(self.paths[node]).tls
        key = private_key_from_pem(read_secret(files.private_key))
        return Signer(key, certificates_from_pem(self.chain_pem(node)))

    def entry(self, by: NodeId, node: NodeId, at_ms: int = START_MS) -> Entry:
        digest = key_digest(self.signer(node).public_key)
        word = Word(by, 1, Target.NODE, node, (digest,), (), 0, "stolen", "op", at_ms)
        return sign_entry(self.signer(by), word)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Made once; nothing changes them."""
    return Folders(tmp_path_factory.mktemp("folders"))


def test_the_order_of_entries_does_not_matter(folders: Folders) -> None:
    """In any order two nodes hold the same heads, and refuse the same."""
    entries = [
        folders.entry(CITY, COUNTY, START_MS + 1),
        folders.entry(COUNTY, TOWNSHIP, START_MS + 2),
        folders.entry(TOWNSHIP, VILLAGE, START_MS + 3),
    ]
    found = set()
    for order in permutations(entries):
        book = RevokedBook(HIERARCHY)
        for each in order:
            book.add([each])
        refused = []
        for node in (CITY, COUNTY, TOWNSHIP, VILLAGE):
            chain = certificates_from_pem(folders.chain_pem(node))
            refused.append(book.judge(chain[:1]) is not None)
        found.add((tuple(sorted(book.heads.items())), tuple(refused)))
        assert [book.counts(each) for each in entries] == [True, False, True]
    # The township's signer was revoked by nobody who counts.
    assert {refused for _, refused in found} == {(False, True, False, True)}
    assert len(found) == 1


def test_the_same_entry_twice_is_one(folders: Folders) -> None:
    """As when two neighbours hand it over."""
    book, entry = RevokedBook(HIERARCHY), folders.entry(CITY, VILLAGE)
    assert book.add([entry]) == (entry,)
    heads = dict(book.heads)
    assert book.add([entry]) == ()
    assert book.heads == heads


def test_what_was_signed_before_counts(folders: Folders) -> None:
    """A receipt, a letter or a grant of the hour before; none of the hour after."""
    book = RevokedBook(HIERARCHY, [folders.entry(CITY, VILLAGE)])
    chain = certificates_from_pem(folders.chain_pem(VILLAGE))
    book.refuse(chain, START_MS - HOUR_MS)
    book.refuse(chain, START_MS)
    for made_ms in (START_MS + 1, None):
        with pytest.raises(PeerRevokedError, match=VILLAGE):
            book.refuse(chain, made_ms)


def test_a_chain_is_not_verified_for_the_revoked(folders: Folders) -> None:
    """Receipts, manifests and greetings ask with the chain; the sibling's is as good as before."""
    book = RevokedBook(HIERARCHY, [folders.entry(CITY, VILLAGE)])
    verify_chain(folders.chain_pem(SIBLING), folders.root_pem, HIERARCHY, NOW, revoked=book)
    with pytest.raises(PeerRevokedError):
        verify_chain(folders.chain_pem(VILLAGE), folders.root_pem, HIERARCHY, NOW, revoked=book)
    with pytest.raises(SignatureInvalidError):
        verify_chain(b"", folders.root_pem, HIERARCHY, NOW, revoked=book)


@pytest.mark.parametrize(("later_ms", "counts"), [(-HOUR_MS, True), (HOUR_MS, False)])
def test_a_letter_counts_by_its_date(folders: Folders, later_ms: int, counts: bool) -> None:
    """The first was under way when its author's machine was stolen."""
    book = RevokedBook(HIERARCHY)
    verifier = NodeVerifier(lambda: folders.root_pem, HIERARCHY, lambda: NOW, book)
    own = FolderKeys(NodeFolder(folders.paths[VILLAGE]).tls).own()
    header = Header(
        "00000000-0000-7000-8000-000000000000",
        VILLAGE,
        TOWNSHIP,
        "test",
        Lane.CONTROL.value,
        format_ms(START_MS + later_ms),
        0,
    )
    letter = read_envelope(CODEC_OPEN, write_open(header, b"{}", own))
    prove(letter, verifier)
    book.add([folders.entry(CITY, VILLAGE)])
    if counts:
        prove(letter, verifier)
    else:
        with pytest.raises(LetterSignatureError, match="revoked"):
            prove(letter, verifier)
    unreadable = replace(letter, header=replace(letter.header, written_at="2026-99-99T00"))
    with pytest.raises(LetterSignatureError):
        prove(unreadable, verifier)


def test_open_calls_of_the_revoked_end_and_others_go_on(folders: Folders) -> None:
    """The thief's stream ends with the reason; the sibling's ends when it is done."""
    book = RevokedBook(HIERARCHY)
    calls = OpenCalls(book)
    chains = {n: certificates_from_pem(folders.chain_pem(n)) for n in (VILLAGE, SIBLING)}

    async def stream(node: NodeId, done: asyncio.Event) -> str:
        try:
            with calls.watched(chains[node]):
                await done.wait()
        except PeerRevokedError:
            return "revoked"
        return "done"

    async def works() -> None:
        done = asyncio.Event()
        streams = [asyncio.create_task(stream(each, done)) for each in (VILLAGE, SIBLING)]
        given_up = asyncio.create_task(stream(VILLAGE, done))
        await asyncio.sleep(0)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        book.add([folders.entry(TOWNSHIP, VILLAGE)])
        calls.look()
        assert await streams[0] == "revoked"
        done.set()
        assert await streams[1] == "done"
        assert await stream(VILLAGE, done) == "revoked"

    asyncio.run(works())
