"""The root's signed statements about the epoch in which a node joined.

A node that joins gets the region file from its parent. Where the root has signed that epoch, the
statements come along: the child checks that the file is the one the root decided on, and keeps them
for its own table of epochs, out of which it hands them to children that are behind.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, Protocol

from hierarchy_config import Hierarchy, shape_digest
from node.clock import Clock
from node.foundations import Foundations, utc_now
from node.logs import get_logger
from node.region.errors import RegionStatementError
from node.region.statements import Judge, Offer, read_decision, read_offer
from node.region.store import EpochStore
from node.security.certificates import certificates_from_pem
from node.security.errors import CertificateUnusableError
from node.security.key_files import write_public

__all__ = ["SignedTexts", "adopt_signed", "check_signed", "keep_signed"]

_FILE: Final = "region.signed.json"


class SignedTexts(Protocol):
    """Statements as they travel."""

    @property
    def offer(self) -> str: ...

    @property
    def decision(self) -> str: ...


def check_signed(
    signed: SignedTexts, hierarchy: Hierarchy, root_pem: bytes, now: datetime
) -> Offer:
    """Check that the root decided on exactly this hierarchy.

    Raises:
        RegionStatementError: It did not.
    """
    raw, decided = signed.offer.encode(), signed.decision.encode()
    offer = read_offer(raw, Judge(root_pem, hierarchy, _signed_at(raw, now)))
    decision = read_decision(decided, Judge(root_pem, hierarchy, _signed_at(decided, now)))
    if (decision.epoch, decision.digest) != (offer.epoch, offer.digest):
        raise RegionStatementError("a decision is for another configuration")
    if shape_digest(offer.hierarchy) != shape_digest(hierarchy):
        raise RegionStatementError("the region file is not the one that the root has signed")
    return offer


def keep_signed(data_dir: Path, signed: SignedTexts) -> None:
    """Keep the statements in a new data folder until its store is opened."""
    said = {"offer": signed.offer, "decision": signed.decision}
    write_public(data_dir / _FILE, json.dumps(said, ensure_ascii=False).encode())


def adopt_signed(base: Foundations, epochs: EpochStore, clock: Clock) -> None:
    """Bring the statements of a new data folder into its table, once; nothing if there are none.

    The node works without them, so what does not hold is left out, and the log says so.
    """
    file = base.paths.data / _FILE
    if not file.exists():
        return
    try:
        texts = _texts(file)
        offer = check_signed(texts, base.hierarchy, base.credentials.root_pem, utc_now(clock))
    except RegionStatementError as error:
        get_logger("region").warning("what the root signed is not kept", reason=error.message)
    else:
        epochs.keep_offer(offer, shape_digest(offer.hierarchy))
        epochs.keep_decision(offer.epoch, texts.decision.encode(), offer.text)
    file.unlink()


@dataclass(frozen=True, slots=True)
class _Texts:
    offer: str
    decision: str


def _texts(file: Path) -> _Texts:
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
        return _Texts(str(said["offer"]), str(said["decision"]))
    except (ValueError, KeyError, TypeError):
        raise RegionStatementError(f"{file} cannot be read") from None


def _signed_at(raw: bytes, now: datetime) -> datetime:
    """When to judge a statement: a certificate of the root may have ended since it was signed."""
    try:
        chain = str(json.loads(raw)["chain"]).encode()
        begun = max(each.not_valid_before_utc for each in certificates_from_pem(chain))
    except (ValueError, KeyError, TypeError, RecursionError, CertificateUnusableError):
        raise RegionStatementError("a statement of the region cannot be read") from None
    return min(now, begun)
