"""What a plan would do, in sentences: the merge and the privacy effect."""

from __future__ import annotations

from federation.core.expressions import canonical
from federation.core.model import Basis
from federation.core.plan import LogicalPlan
from federation.core.release import keys_are_public

__all__ = ["merge_steps", "privacy_notes"]


def merge_steps(plan: LogicalPlan) -> tuple[str, ...]:
    """The steps from the sites' tables to the answer, in order."""
    keys = ", ".join(canonical(group) for group in plan.groups) or "the whole scope"
    steps = [f"match the sites' groups by {keys}", "p0_n: add the row counts"]
    for spec in plan.partials:
        if spec.argument is None:
            continue
        name, argument = f"p{spec.slot}", canonical(spec.argument)
        steps.append(f"{name}_n: add the counts of {argument}")
        if spec.has_sum:
            steps.append(f"{name}_sum: add the sums of {argument}")
        if spec.has_moments:
            steps.append(f"{name}_mean, {name}_m2: merge the moments of {argument}")
    if plan.basis is Basis.RESIDENCE:
        steps.append("residents: add, since every resident has one home")
    else:
        steps.append("residents: take the largest, since a resident may be at several providers")
    if plan.having is not None:
        steps.append("keep the groups that HAVING allows")
    steps.append("order the rows" if plan.order else "order the rows by their keys")
    if plan.limit is not None or plan.offset:
        steps.append("cut at LIMIT and OFFSET")
    return tuple(steps)


def privacy_notes(plan: LogicalPlan, cell_count_min: int) -> tuple[str, ...]:
    """What the question reveals and what it cannot."""
    notes = [
        f"figures resting on 1 to {cell_count_min - 1} residents are withheld and shown as "
        f"<{cell_count_min}"
        if cell_count_min > 1
        else "no figure is withheld: the threshold is 1",
        "only groups' keys, counts and partial aggregates leave a node",
    ]
    notes.append("who forbids the purpose to the asker is left out, unless it is public_health")
    if plan.groups:
        notes.append(
            "the keys of withheld groups are shown: they are places and sexes"
            if keys_are_public(plan)
            else "withheld groups are folded into one row without keys"
        )
    return tuple(notes)
