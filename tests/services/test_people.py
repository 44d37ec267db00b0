"""People on running nodes: sign in, act, get ended; what a county says reaches its township."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

import protos.fenhe.control.v1.people_pb2 as pb
import protos.fenhe.empi.v1.empi_pb2 as empi
from hierarchy_config import NodeId
from node.callers import credentials_of
from node.security.caller import CallerKind
from node.security.tls import GrpcLimits, channel_credentials, channel_options
from protos.fenhe.control.v1 import people_pb2_grpc
from protos.fenhe.empi.v1 import empi_pb2_grpc
from tests.services.command import fenhe
from tests.services.region import Region, nodes
from tests.services.waiting import CLOCK, until

COUNTY, TOWNSHIP = nodes("141002", "141002001")
FIRST, SECOND = "the first one of all", "four words make one"
CALL_S = 20.0


@pytest.fixture(scope="module")
def region(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Region]:
    """A county and its township, linked."""
    with Region(tmp_path_factory.mktemp("people"), (COUNTY, TOWNSHIP)) as made:
        credentials_of(
            made.place.node_dir(COUNTY),
            CallerKind.CLIENT,
            "desk-1",
            folder(made, COUNTY, "client"),
            clock=CLOCK,
            days=7,
            address=made.credentials("operator", COUNTY).address,
        )
        made.start()
        made.linked(TOWNSHIP)
        yield made


def folder(region: Region, node: NodeId, kind: str) -> Path:
    """A folder of credentials."""
    return region.place.credentials_dir(f"{kind}-{node}")


def run(as_: Path, *words: str, given: str = "", ok: bool = True) -> str:
    """What a command prints; secrets go in by standard input."""
    done = fenhe(*words, "--as", as_, given=given)
    assert (done.returncode == 0) is ok, done.stdout + done.stderr
    return done.stdout if ok else done.stderr


def told(as_: Path, *words: str, given: str = "") -> Any:
    """The JSON that a command prints."""
    return json.loads(run(as_, *words, "--json", given=given))


def call(region: Region, node: NodeId, kind: str, token: str | None, work: Any) -> Any:
    """One call over a channel of a kind of certificate, with a token or none."""
    who = region.credentials(kind, node)
    options = channel_options(who.server_name, GrpcLimits())
    shown = () if token is None else (("authorization", token),)
    with grpc.secure_channel(who.address, channel_credentials(who.tls), options=options) as channel:
        return work(channel, shown)


def code_of(region: Region, node: NodeId, kind: str, token: str | None, work: Any) -> str:
    """The stable code of a call that fails."""
    with pytest.raises(grpc.RpcError) as raised:
        call(region, node, kind, token, work)
    trailing: Any = raised.value.trailing_metadata() or ()
    return next((str(value) for key, value in trailing if key == "fenhe-code"), "")


def find(channel: grpc.Channel, shown: Any) -> Any:
    """A call of care that a certificate may make as well."""
    asked = empi.FindResidentRequest(identifier=empi.Identifier(system="health_card", value="none"))
    stub = empi_pb2_grpc.ResidentServiceStub(channel)
    return stub.Find(asked, timeout=CALL_S, metadata=shown)


def sessions(channel: grpc.Channel, shown: Any) -> Any:
    """A call of staff."""
    stub = people_pb2_grpc.SessionServiceStub(channel)
    return stub.ListSessions(pb.ListSessionsRequest(), timeout=CALL_S, metadata=shown)


def test_an_operator_makes_an_administrator_who_signs_in_acts_and_is_ended(region: Region) -> None:
    """From an empty node to a managed one, by the commands, and out again."""
    operator, desk = folder(region, COUNTY, "operator"), folder(region, COUNTY, "client")
    hospital = told(
        operator, "org", "add", "县人民医院", "--division", COUNTY, "--kind", "hospital"
    )["id"]
    chief = told(operator, "staff", "add", hospital, "--name", "李四")["id"]
    run(operator, "role", "give", chief, "administrator", "nurse")
    run(operator, "account", "add", "li.si", "--staff", chief, given=f"{FIRST}\n")

    assert "SIGN_IN_REFUSED" in run(desk, "session", "sign-in", "li.si", given="wrong\n", ok=False)
    must = run(desk, "session", "sign-in", "li.si", given=f"{FIRST}\n", ok=False)
    assert must.startswith("PASSWORD_MUST_CHANGE:")
    said = told(desk, "session", "sign-in", "li.si", "--new-password", given=f"{FIRST}\n{SECOND}\n")
    assert said["roles"] == ["administrator", "nurse"]
    assert "token" not in said
    kept = desk / "session.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600

    # The commands that follow are his: within his roles, and on his workstation alone.
    ward = told(desk, "org", "department", hospital, "内科")["id"]
    nurse = told(desk, "staff", "add", hospital, "--name", "王五")["id"]
    run(desk, "role", "give", nurse, "nurse")
    lacked = run(desk, "role", "give", nurse, "auditor", ok=False)
    assert lacked.startswith("ROLE_LACKED:")
    outside = run(desk, "org", "add", "x", "--division", "1410", "--kind", "other", ok=False)
    assert outside.startswith("NOT_YOUR_DIVISION:")
    assert told(desk, "org", "show", hospital)["departments"][0]["department_id"] == ward
    assert max(map(len, run(desk, "role", "list").splitlines())) <= 100

    (listed,) = told(desk, "session", "list")
    run(operator, "session", "end", listed["session_id"])
    assert run(desk, "org", "list", ok=False).startswith("SESSION_ENDED:")
    assert "SESSION_ENDED" in run(desk, "session", "sign-out", ok=False)
    assert not kept.exists()


def test_a_token_is_its_owner_or_nobody(region: Region) -> None:
    """Bad, of another node, on another channel: never the certificate, which alone would do."""
    operator = folder(region, COUNTY, "operator")
    clinic = told(operator, "org", "add", "卫生院", "--division", COUNTY, "--kind", "clinic")["id"]
    staff = told(operator, "staff", "add", clinic, "--name", "赵六")["id"]
    run(operator, "role", "give", staff, "registrar")
    run(operator, "account", "add", "zhao", "--staff", staff, given=f"{FIRST}\n")

    def sign_in(channel: grpc.Channel, shown: Any) -> Any:
        stub = people_pb2_grpc.SessionServiceStub(channel)
        asked = pb.SignInRequest(name="zhao", password=FIRST, new_password=SECOND)
        return stub.SignIn(asked, timeout=CALL_S)

    made = call(region, COUNTY, "client", None, sign_in)
    bearer = f"Bearer {made.token}"
    assert made.token not in repr(call(region, COUNTY, "client", bearer, sessions))
    call(region, COUNTY, "client", bearer, find)
    call(region, COUNTY, "client", None, find)
    for wrong in ("Bearer x", bearer[:-1], f"{bearer}A", "Basic x", made.token):
        assert code_of(region, COUNTY, "client", wrong, find) == "SESSION_ENDED"
    assert code_of(region, COUNTY, "operator", bearer, find) == "SESSION_ENDED"
    assert code_of(region, TOWNSHIP, "client", bearer, find) == "SESSION_ENDED"
    assert code_of(region, COUNTY, "client", None, sessions) == "DENIED"
    run(operator, "account", "disable", "zhao")
    assert code_of(region, COUNTY, "client", bearer, find) == "SESSION_ENDED"


def test_what_a_county_says_of_a_township_counts_there(region: Region) -> None:
    """A role given above opens a session below; taken above it ends it."""
    county, township = (folder(region, each, "operator") for each in (COUNTY, TOWNSHIP))
    clinic = told(county, "org", "add", "乡卫生院", "--division", TOWNSHIP, "--kind", "clinic")[
        "id"
    ]
    staff = told(county, "staff", "add", clinic, "--name", "孙七")["id"]
    (given,) = told(county, "role", "give", staff, "nurse")
    until(
        "the role is at the township",
        lambda: staff in {each["staff_id"] for each in told(township, "role", "list")},
    )
    run(township, "account", "add", "sun", "--staff", staff, given=f"{FIRST}\n")
    desk = folder(region, TOWNSHIP, "client")
    given_in = f"{FIRST}\n{SECOND}\n"
    run(desk, "session", "sign-in", "sun", "--new-password", given=given_in)
    assert told(desk, "staff", "show", staff)["staff"]["name"] == "孙七"
    run(county, "role", "take", given["id"])

    def is_out() -> bool:
        done = fenhe("org", "list", "--as", desk)
        return done.stderr.startswith("SESSION_ENDED:")

    until("the role counts no more", is_out)


def test_no_secret_is_in_a_log(region: Region) -> None:
    """Passwords, names and tokens, after all of the above."""
    for node in (COUNTY, TOWNSHIP):
        text = (region.place.node_dir(node) / "node.log").read_text()
        for marker in (FIRST, SECOND, "李四", "孙七", "fenhe1."):
            assert marker not in text
