"""The entries in memory: which chains are refused. Does no I/O; safe from several threads.

An entry applies to certificates of the node that it names and to no others, so that a list which
holds the key of somebody else is toothless. What a signer said after it was revoked itself does not
count. A chain is judged as far as this node needs others' word for it: what its own authority has
signed does not depend on those above, so that a revoked county costs its villages no care.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from hierarchy_config.hierarchy import Hierarchy
from hierarchy_config.model import NodeId
from node.clock import format_ms
from node.revocation.entries import Entry, Target
from node.revocation.facts import CertificateFacts, facts_of
from node.security.certificates import PublicKey
from node.security.errors import PeerRevokedError
from node.security.former import is_signed_by

__all__ = ["RevokedBook"]

_JUDGED_KEPT: Final = 1024
_UNJUDGED: Final = object()


@dataclass(frozen=True, slots=True)
class _Index:
    """What counts, by what it is found with."""

    by_key: Mapping[str, tuple[Entry, ...]] = field(default_factory=dict)
    by_principal: Mapping[str, tuple[Entry, ...]] = field(default_factory=dict)
    by_time: Mapping[str, tuple[Entry, ...]] = field(default_factory=dict)

    def find(self, facts: CertificateFacts, made_ms: int | None) -> Entry | None:
        """The entry that revokes a certificate, or what it signed then."""
        found = [
            *(e for e in self.by_key.get(facts.key, ()) if _is_about(e, facts)),
            *self.by_principal.get(facts.principal, ()),
        ]
        if not facts.is_caller:
            by_time = self.by_time.get(facts.node_id, ())
            found += [e for e in by_time if facts.issued_ms <= e.word.issued_before_ms]
        for entry in found:
            if made_ms is None or entry.word.at_ms < made_ms:
                return entry
        return None


class RevokedBook:
    """Implements node/security/identity.py's KeyJudge."""

    def __init__(self, hierarchy: Hierarchy, entries: Iterable[Entry] = ()) -> None:
        self._hierarchy = hierarchy
        self._own: PublicKey | None = None
        self._lock = threading.Lock()
        self._entries: dict[str, Entry] = {}
        self._index = _Index()
        self._heads: Mapping[str, str] = MappingProxyType({})
        self._judged: dict[bytes, object] = {}
        self.add(entries)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Every entry, those too that do not count."""
        return tuple(self._entries.values())

    @property
    def heads(self) -> Mapping[str, str]:
        """By signer, a digest over its entries: two nodes with the same one hold the same list."""
        return self._heads

    def holds(self, digest: str) -> bool:
        """Whether an entry is here already."""
        return digest in self._entries

    def trust(self, authority: PublicKey) -> None:
        """Take this node's own authority for one whose word needs nobody else's."""
        with self._lock:
            self._own = authority
            self._judged = {}

    def add(self, entries: Iterable[Entry]) -> tuple[Entry, ...]:
        """Take verified entries; returns those that are new."""
        with self._lock:
            new = tuple(each for each in entries if each.digest not in self._entries)
            # Replaced whole, so that a reader in another thread sees one state or the other.
            held = {**self._entries, **{each.digest: each for each in new}}
            if new:
                self._entries = held
                self._index = self._indexed(held.values())
                self._heads = _heads(held.values())
                self._judged = {}
            return new

    def counts(self, entry: Entry) -> bool:
        """Whether an entry has effect: its signer was not revoked when it said it."""
        return self._counts(entry, self._index)

    def principal_entry(self, principal: str) -> Entry | None:
        """The entry that revokes whoever has this name, for good; None: nothing does."""
        return next(iter(self._index.by_principal.get(principal, ())), None)

    def judge(self, chain: Sequence[x509.Certificate], made_ms: int | None = None) -> Entry | None:
        """The entry for which a chain, leaf first, is refused; None: it is good."""
        if not self._entries or not chain:
            return None
        named = b"".join(each.public_bytes(Encoding.DER) for each in chain)
        key = hashlib.sha256(b"%d|%s" % (-1 if made_ms is None else made_ms, named)).digest()
        # Another thread may put another dictionary in its place; what is found here holds for now.
        judged = self._judged
        found = judged.get(key, _UNJUDGED)
        if found is _UNJUDGED:
            found = self._find(chain, made_ms)
            if len(judged) >= _JUDGED_KEPT:
                judged.clear()
            judged[key] = found
        return found if isinstance(found, Entry) else None

    def refuse(self, chain: Sequence[x509.Certificate], made_ms: int | None = None) -> None:
        """See KeyJudge."""
        entry = self.judge(chain, made_ms)
        if entry is not None:
            word = entry.word
            raise PeerRevokedError(
                f"a key of {word.node_id} was revoked by {word.signer} at {format_ms(word.at_ms)}"
            )

    def is_revoked(self, key: str, node_id: NodeId, issued_ms: int = 2**53) -> bool:
        """Whether a node's key, by its digest, is revoked in a certificate issued then."""
        facts = CertificateFacts(key, node_id, "", is_caller=False, issued_ms=issued_ms)
        return self._index.find(facts, None) is not None

    def about(self, node_id: NodeId) -> tuple[Entry, ...]:
        """The entries that count about a node's own keys."""
        return tuple(
            each
            for each in self._entries.values()
            if each.word.node_id == node_id
            and each.word.target is Target.NODE
            and self.counts(each)
        )

    def _find(self, chain: Sequence[x509.Certificate], made_ms: int | None) -> Entry | None:
        own = self._own is not None and is_signed_by(chain[0], self._own)
        for facts in facts_of(chain[:1] if own else chain):
            entry = self._index.find(facts, made_ms)
            if entry is not None:
                return entry
        return None

    def _indexed(self, entries: Iterable[Entry]) -> _Index:
        """Take signers from the root down: only somebody above can have revoked one."""
        by_key: dict[str, tuple[Entry, ...]] = {}
        by_principal: dict[str, tuple[Entry, ...]] = {}
        by_time: dict[str, tuple[Entry, ...]] = {}
        index = _Index(by_key, by_principal, by_time)
        for entry in sorted(entries, key=self._depth):
            if not self._counts(entry, index):
                continue
            for key in entry.word.keys:
                by_key[key] = (*by_key.get(key, ()), entry)
            for principal in entry.word.principals:
                by_principal[principal] = (*by_principal.get(principal, ()), entry)
            if entry.word.issued_before_ms:
                node_id = entry.word.node_id
                by_time[node_id] = (*by_time.get(node_id, ()), entry)
        return index

    def _counts(self, entry: Entry, index: _Index) -> bool:
        return not any(index.find(facts, entry.word.at_ms) for facts in entry.signers)

    def _depth(self, entry: Entry) -> tuple[int, int, str]:
        signer, hierarchy = entry.word.signer, self._hierarchy
        known = signer in hierarchy
        depth = hierarchy.entry(signer).level.depth if known else len(hierarchy.nodes)
        return depth, entry.word.at_ms, entry.digest


def _is_about(entry: Entry, facts: CertificateFacts) -> bool:
    is_caller = entry.word.target is Target.CALLER
    return facts.node_id == entry.word.node_id and facts.is_caller is is_caller


def _heads(entries: Iterable[Entry]) -> Mapping[str, str]:
    by_signer: dict[str, list[str]] = {}
    for each in entries:
        by_signer.setdefault(each.word.signer, []).append(each.digest)
    return MappingProxyType(
        {
            signer: hashlib.sha256("".join(sorted(digests)).encode()).hexdigest()
            for signer, digests in by_signer.items()
        }
    )
