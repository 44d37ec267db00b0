"""What was lent is not passed on, and nobody judges himself."""

from __future__ import annotations

from dataclasses import replace

import pytest

from node.consent.errors import GrantBorrowedError, OwnReviewError
from node.consent.model import Wanted
from node.security.caller import CallerKind
from node.security.roles import Role
from tests.contracts.consent.test_desks import (
    CLIENT,
    DENY,
    DOCTOR,
    HIS,
    OTHER_DOCTOR,
    REGISTRAR,
    Desks,
    desks,
)
from tests.contracts.consent.world import ORGANIZATION, OTHER, caller

__all__ = ["desks"]


@pytest.mark.parametrize("whom", ["staff:f", f"organization:{OTHER}"])
def test_nobody_grants_what_was_lent_to_him(desks: Desks, whom: str) -> None:
    """Half an hour of a broken glass, and a grant, end with what they were given for."""
    wanted = Wanted("g", HIS, whom=whom, reason="second opinion", hours=2160)
    glass = desks.access.break_glass(DOCTOR, Wanted("b", HIS, reason="unconscious")).grant
    assert desks.sees(DOCTOR)
    with pytest.raises(GrantBorrowedError):
        desks.access.grant(DOCTOR, wanted)
    desks.access.revoke_grant(DOCTOR, glass.grant_id)

    third = caller(CallerKind.STAFF, organization="org-c", staff_id="t", role=Role.DOCTOR)
    desks.access.relate(CLIENT, Wanted("t", HIS, "contract", "org-c"))
    lent = Wanted("l", HIS, whom=f"organization:{ORGANIZATION}", reason="second opinion")
    desks.access.grant(third, lent)
    assert desks.sees(DOCTOR)
    with pytest.raises(GrantBorrowedError):
        desks.access.grant(DOCTOR, wanted)
    assert not desks.sees(OTHER_DOCTOR)

    desks.access.relate(REGISTRAR, Wanted("r", HIS, "contract"))
    desks.access.grant(DOCTOR, wanted)
    assert desks.sees(OTHER_DOCTOR)


def test_a_glass_over_a_consent_grants_nothing_even_to_who_cares(desks: Desks) -> None:
    """What he has forbidden is lent for half an hour, whoever cares for him."""
    desks.access.relate(REGISTRAR, Wanted("r", HIS, "contract"))
    desks.consents.put(CLIENT, DENY)
    desks.access.break_glass(DOCTOR, Wanted("b", HIS, reason="unconscious"))
    with pytest.raises(GrantBorrowedError):
        desks.access.grant(DOCTOR, Wanted("g", HIS, whom="staff:f", reason="second opinion"))


@pytest.mark.parametrize("role", [Role.AUDITOR, Role.ADMINISTRATOR])
def test_nobody_closes_the_review_of_his_own_glass(desks: Desks, role: Role) -> None:
    """In another role of his, nor for another organization; a colleague and the operator do."""
    glasses = [
        desks.access.break_glass(DOCTOR, Wanted(name, HIS, reason="unconscious")).grant.grant_id
        for name in "ab"
    ]
    himself = replace(DOCTOR, roles=frozenset({role}), purpose="audit")
    elsewhere = replace(himself, principal="spiffe://linfen/141002/staff/d", organization_id=OTHER)
    nameless = replace(himself, staff_id="")
    for asker in (himself, elsewhere, nameless):
        with pytest.raises(OwnReviewError):
            desks.reviews.close(asker, glasses[0], "justified", "")
    assert _waiting(desks) == 2

    colleague = caller(CallerKind.STAFF, organization=ORGANIZATION, staff_id="e", role=role)
    operator = caller(CallerKind.OPERATOR, purpose="operation")
    for asker, glass in zip((colleague, operator), glasses, strict=True):
        assert desks.reviews.close(asker, glass, "justified", "").state == "justified"
    assert _waiting(desks) == 0


def _waiting(desks: Desks) -> int:
    return len(desks.reviews.listed(CLIENT, closed_too=False, after="", limit=10))
