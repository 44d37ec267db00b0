"""The people of a node in a region without a wire: who manages, who signs in."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, replace

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import select

from hierarchy_config.model import NodeId
from node.people.model import NewAccount, NewAssignment, NewOrganization, NewStaff, SignedIn
from node.people.oidc import Issuer
from node.people.passwords import PasswordCost
from node.people.proving import SignIn
from node.people.room import PeopleParts, make_parts
from node.security.caller import Caller, CallerKind
from node.security.certificates import new_private_key
from node.security.methods import roles_for
from node.security.roles import Role
from node.storage.tables import AUDIT
from replication.changelog import read_transaction
from tests.contracts.storage.region import NodeStore

__all__ = ["CHEAP", "FIRST", "PASSWORD", "Office", "Worker", "deeds_of"]

FIRST = "the first one of all"
PASSWORD = "four words make one"
CHEAP = PasswordCost(32, 1, 1)


class HandSigner:
    """A node's key."""

    def __init__(self) -> None:
        self._key = new_private_key()
        self.public_key = self._key.public_key()

    def sign(self, data: bytes) -> bytes:
        return self._key.sign(data, ec.ECDSA(hashes.SHA256()))


@dataclass(frozen=True)
class Worker:
    """One of the staff with his account."""

    staff_id: str
    account: str
    assignments: tuple[str, ...]


class Office:
    """The people's parts on one node's store, and short words for what tests do with them."""

    def __init__(
        self,
        node: NodeStore,
        *,
        issuer: Issuer | None = None,
        cost: PasswordCost = CHEAP,
        signer: HandSigner | None = None,
    ) -> None:
        self.node = node
        self.signer = signer or HandSigner()
        source = random.Random(int(node.node_id) + 7)
        self.parts: PeopleParts = make_parts(
            node.storage.context,
            self.signer,
            lambda: None,
            issuer=issuer,
            random_bytes=source.randbytes,
            cost=cost,
        )
        self.operator: Caller = node.caller(CallerKind.OPERATOR, "local")
        self.channel: Caller = node.caller(CallerKind.CLIENT, "desk-1")
        self._numbers = itertools.count(1)

    def organization(
        self,
        division: NodeId | None = None,
        *,
        by: Caller | None = None,
        name: str = "县人民医院",
        parent: str = "",
    ) -> str:
        """A new organization's id."""
        new = NewOrganization(division or self.node.node_id, name, "hospital", parent)
        return self.parts.registry.add_organization(by or self.operator, new, "").object_id

    def member(self, organization: str, *, by: Caller | None = None, name: str = "李四") -> str:
        """A new member of staff's id."""
        new = NewStaff(organization, name, "13900000001", "主治医师")
        return self.parts.registry.add_staff(by or self.operator, new, "").object_id

    def give(self, staff: str, role: Role, *, by: Caller | None = None, **more: str) -> str:
        """A new assignment's id."""
        new = NewAssignment(staff, role, **more)
        return self.parts.registry.give_role(by or self.operator, new, "").object_id

    def worker(self, organization: str, *roles: Role, division: NodeId | None = None) -> Worker:
        """Somebody with roles and an account whose password he has changed."""
        staff = self.member(organization)
        given = tuple(self.give(staff, role, division=division or "") for role in roles)
        name = f"worker{next(self._numbers)}"
        self.parts.accounts.add(self.operator, NewAccount(name, staff, FIRST), "")
        if roles:
            self.sign_in(name, FIRST, new_password=PASSWORD)
        return Worker(staff, name, given)

    def sign_in(
        self, name: str, password: str = PASSWORD, *, on: Caller | None = None, **more: str
    ) -> SignedIn:
        """A session."""
        return self.parts.proving.sign_in(on or self.channel, SignIn(name, password, **more))

    def caller(self, session: SignedIn, *, on: Caller | None = None, method: str = "") -> Caller:
        """Whom a call with a session's token is made by, as the interceptor finds out."""
        sessions, channel = self.parts.sessions, (on or self.channel).principal
        found = sessions.kept(session.token, channel) or sessions.looked_up(session.token, channel)
        return replace(found.bound_to(roles_for(method)), purpose="test")

    def acting(self, worker: Worker) -> Caller:
        """Somebody who has signed in."""
        return self.caller(self.sign_in(worker.account))


def deeds_of(node: NodeStore) -> list[tuple[str, str, str, str | None]]:
    """Action, table, outcome and object of every audit entry."""
    columns = (AUDIT.c.action, AUDIT.c.object_table, AUDIT.c.outcome, AUDIT.c.object_id)
    with read_transaction(node.engine) as connection:
        rows = connection.execute(select(*columns).order_by(AUDIT.c.audit_id))
        return [tuple(row) for row in rows]
