"""What must hold when the faults are over: every acknowledged row where policy sends it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from hierarchy_config import CopyForm, Hierarchy, NodeId
from node.security.blind_index import Pseudonymizer
from node.security.folders import NodeFolder
from node.security.key_files import load_key
from tests.chaos.acknowledged import AWAY, Acknowledged
from tests.chaos.expected import Expected, Whereabouts, expected_of
from tests.chaos.faults import Faults
from tests.chaos.moves import EDIT, MOVE, Mover
from tests.chaos.place import ChaosPlace
from tests.chaos.verify_moves import Granted, granted_at, owner_faults
from tests.services.stores import HeldRow, opened

__all__ = ["Verdict", "verify"]

Letters = Mapping[tuple[str, str], set[str]]
Row = tuple[str, str]
Rows = Mapping[Row, HeldRow]


@dataclass
class Verdict:
    """What was found. `lost`: acknowledged and not where it must be, by node."""

    acknowledged: int = 0
    forgiven: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    leaks: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    quarantined: Counter[str] = field(default_factory=Counter)
    loads: Counter[str] = field(default_factory=Counter)

    @property
    def holds(self) -> bool:
        """Whether nothing is lost, leaked or out of order."""
        return not (self.lost or self.leaks or self.faults)


def verify(place: ChaosPlace, noted: list[Acknowledged], faults: Faults, mover: Mover) -> Verdict:
    """Compare every node's store with what was acknowledged. The nodes are stopped."""
    restores = faults.restores
    expected, pardoned = expected_of(noted, restores.forgiven)
    granted = granted_at(place)
    lost = restores.lost_residents - {row_id for table, row_id in expected if table == "residents"}
    where = Whereabouts(place.tree, granted.homes, restores.last_ms, lost)
    verdict = Verdict(acknowledged=len(noted), forgiven=pardoned)
    stores: dict[NodeId, Rows] = {}
    letters: dict[NodeId, Letters] = {}
    for node in place.nodes:
        with opened(place.place, node) as store:
            stores[node] = store.rows()
            letters[node] = store.letters_about()
            verdict.quarantined.update(store.quarantine_causes())
            _check_log(node, [e["sequence"] for e in store.log()], verdict)
            # The audit of a former life went with it.
            since_ms = restores.last_ms.get(node, 0)
            written = sum(ack.author == node and ack.at_ms > since_ms for ack in noted)
            if store.audited_rows() < written:
                verdict.faults.append(f"{node} audited fewer rows than it acknowledged")
            if store.audit_break() is not None:
                verdict.faults.append(f"the audit's chain of {node} breaks")
    for row, must in expected.items():
        _check_row(stores, row, must, where, verdict)
        if must.load == AWAY:
            _check_receipt(letters[must.author].get(row, set()), must, where, granted, verdict)
    for node, rows in stores.items():
        _check_leaks(node, rows, where, verdict)
    verdict.faults += owner_faults(granted, mover.asked, stores, where)
    _check_digests(where.tree, stores, verdict)
    _check_city(place, where.tree, stores, verdict)
    verdict.loads.update(ack.load for ack in noted)
    verdict.loads[MOVE] = len(granted.homes.keys() - lost)
    verdict.loads[EDIT] = len(mover.edits)
    return verdict


def _check_row(
    stores: Mapping[NodeId, Rows],
    row: Row,
    must: Expected,
    where: Whereabouts,
    verdict: Verdict,
) -> None:
    for node in where.nodes_of(row[0], must):
        held = stores[node].get(row)
        if held is None or held.version[1] < must.number:
            verdict.lost[f"{row[0]} of {must.author} at {node} ({must.load})"] += 1


def _check_receipt(
    states: set[str], must: Expected, where: Whereabouts, granted: Granted, verdict: Verdict
) -> None:
    """Its author has the home's receipt for every letter that carried it."""
    if must.resident_id in where.lost or where.had_alone(must):
        return
    below = where.tree.subtree(must.author)
    # If he lived at the author's or below it when it was written, no letter was needed.
    came_near = any(
        resident_id == must.resident_id and home in below
        for (resident_id, _), home in granted.by_epoch.items()
    )
    if states != {"confirmed"} and not (came_near and not states):
        verdict.lost[f"receipts of {must.author}: {sorted(states)}"] += 1


def _check_leaks(node: NodeId, rows: Rows, where: Whereabouts, verdict: Verdict) -> None:
    """A row lies where its resident's home is below, or where it was written."""
    below = where.tree.subtree(node)
    is_city = node == where.tree.root
    for key, row in rows.items():
        home = where.homes.get(row.resident_id, NodeId(row.home))
        if (row.home not in below or home not in below) and row.author != node:
            verdict.leaks.append(f"{key[0]} of {row.home}, home {home}, at {node}")
        if is_city and row.form == "full":
            verdict.leaks.append(f"a full row of {key[0]} at the city")


def _check_log(node: NodeId, sequences: list[int | None], verdict: Verdict) -> None:
    numbered = [number for number in sequences if number is not None]
    if len(numbered) != len(set(numbered)):
        verdict.faults.append(f"{node} gave a number twice")


def _check_digests(tree: Hierarchy, stores: Mapping[NodeId, Rows], verdict: Verdict) -> None:
    """Parent and child hold the same of the child's subtree, above and below alike."""
    for node in stores:
        parent = tree.parent(node)
        if parent is None or tree.parent(parent) is None:
            continue
        below = tree.subtree(node)
        mine = digest({k: r for k, r in stores[node].items() if r.home in below})
        theirs = digest({k: r for k, r in stores[parent].items() if r.home in below})
        if mine != theirs:
            verdict.faults.append(
                f"{node} and {parent} differ in {_differing(stores[node], stores[parent], below)} "
                "rows"
            )


def _differing(mine: Rows, theirs: Rows, below: frozenset[NodeId]) -> int:
    keys = {k for rows in (mine, theirs) for k, r in rows.items() if r.home in below}
    return sum(
        (mine[k].version if k in mine else None) != (theirs[k].version if k in theirs else None)
        for k in keys
    )


def digest(rows: Rows) -> str:
    """SHA-256 of ids and versions, in order."""
    said = json.dumps(sorted([*key, *row.version] for key, row in rows.items()))
    return hashlib.sha256(said.encode()).hexdigest()


def _check_city(
    place: ChaosPlace, tree: Hierarchy, stores: Mapping[NodeId, Rows], verdict: Verdict
) -> None:
    """The city has each county's rows as policy says: by pseudonym, at the same version."""
    city = stores[NodeId(tree.root)]
    for county in tree.children(NodeId(tree.root)):
        key = NodeFolder(place.place.node_dir(county)).pseudonym_key
        pseudonyms = Pseudonymizer(load_key(key))
        must: dict[Row, tuple[int, int]] = {}
        below = tree.subtree(county)
        for (table, row_id), row in stores[county].items():
            if row.home not in below:
                continue
            forms = tree.copy_forms(county, table)
            if CopyForm.DEIDENTIFIED in forms:
                must[table, pseudonyms.pseudonym(table, row_id)] = row.version
            if CopyForm.INDEX in forms and table == "residents":
                must["resident_index", row_id] = row.version
        held = {k: row.version for k, row in city.items() if row.home in below}
        missing = {k for k, version in must.items() if held.get(k, (0, 0)) < version}
        if missing:
            verdict.lost[f"of {county} at the city"] += len(missing)
        if more := held.keys() - must.keys():
            verdict.faults.append(f"the city has {len(more)} rows that {county} has not")
