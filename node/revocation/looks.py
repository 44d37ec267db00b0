"""What `fenhe doctor` finds of revoked keys that somebody goes on using."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from hierarchy_config.errors import FenheError
from hierarchy_config.model import NodeId
from node.doctor.findings import Finding, Severity
from node.links import LinkState
from node.revocation.book import RevokedBook
from node.security.certificates import certificates_from_pem

__all__ = ["TOPIC", "neighbours_findings", "own_findings"]

TOPIC: Final = "REVOKED"
_JOIN: Final = "Give it new keys: `fenhe node invite` at the parent, `fenhe node join` here."


def own_findings(book: RevokedBook, chains: Mapping[str, Path]) -> Iterator[Finding]:
    """This node's own chains, by what they are called; one that is not there is not looked at."""
    revoked = 0
    for name, path in chains.items():
        try:
            chain = certificates_from_pem(path.read_bytes())
        except FileNotFoundError:
            continue
        except FenheError as error:
            yield Finding(TOPIC, Severity.BAD, f"the {name} cannot be read", error.hint)
            continue
        entry = book.judge(chain)
        if entry is not None:
            revoked += 1
            said = f"a key of this node's {name} is revoked, by {entry.word.signer}"
            yield Finding(TOPIC, Severity.BAD, said, _JOIN)
    if not revoked:
        yield Finding(TOPIC, Severity.GOOD, "no key of this node is known to be revoked")


def neighbours_findings(states: Mapping[NodeId, LinkState]) -> Iterator[Finding]:
    """Neighbours that go on calling, or being called, with a key that is refused."""
    for state in states.values():
        if not state.connected and state.last_error.startswith("PEER_REVOKED"):
            said = f"the {state.role} is refused, or refuses this node: a key is revoked"
            step = "Find out whose key it is (`fenhe node revoked`), and give that node new ones."
            yield Finding(TOPIC, Severity.BAD, said, step, state.peer)
