"""Data folders made by `fenhe node init`: whose key counties share, which suite, who may call."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from hardware_profiles import load_profile
from hierarchy_config import Hierarchy, NodeId
from node.callers import credentials_of
from node.demo.place import DemoPlace
from node.errors import SettingsError
from node.initialise import NewNode, initialise
from node.opening import OpenStore, open_store
from node.records.model import Bundle, NewIdentifier, NewResident
from node.revocation.entries import Target, Word, sign_entry
from node.security.caller import CallerKind, local_operator
from node.security.certificates import certificates_from_pem, private_key_from_pem
from node.security.credentials import load_credentials
from node.security.errors import (
    CertificateUnusableError,
    KeyFileExistsError,
    PeerIdentityError,
    PeerRevokedError,
)
from node.security.folders import NodeFolder
from node.security.key_files import read_secret
from node.security.signatures import Signer
from node.security.suites import Suite
from node.settings import load_settings, save_settings
from node.storage.tables import REVOCATION
from tests.services.region import nodes
from tests.services.waiting import CLOCK

CITY, COUNTY, OTHER_COUNTY, TOWNSHIP = nodes("1410", "141002", "141024", "141002100")
TWO_COUNTIES = DemoPlace.slice((CITY, COUNTY, OTHER_COUNTY, TOWNSHIP))
LISTEN = "127.0.0.1:4510"
NUMBER = "14260119800101001X"


def make(root: Path, node: NodeId, hierarchy: Hierarchy = TWO_COUNTIES, **more: object) -> Path:
    """Make a node's folder beside its parent's."""
    parent = hierarchy.parent(node)
    new = NewNode(node, LISTEN, parent_data=root / parent if parent else None)
    initialise(root / node, hierarchy, replace(new, **more), CLOCK)  # type: ignore[arg-type]
    return root / node


def test_counties_share_one_pseudonym_key(tmp_path: Path) -> None:
    """The first makes it, the second takes it; the city never holds it."""
    city = make(tmp_path, CITY)
    first = NodeFolder(make(tmp_path, COUNTY, new_pseudonym_key=True))
    second = NodeFolder(make(tmp_path, OTHER_COUNTY, pseudonym_from=first.path))
    assert second.pseudonym_key.read_bytes() == first.pseudonym_key.read_bytes()
    assert second.regional_index_key.read_bytes() == first.regional_index_key.read_bytes()
    assert not NodeFolder(city).pseudonym_key.exists()
    assert not NodeFolder(make(tmp_path, TOWNSHIP)).pseudonym_key.exists()


def test_a_county_among_several_says_where_its_key_comes_from(tmp_path: Path) -> None:
    """A key made in silence would give one person two pseudonyms; nothing is made meanwhile."""
    make(tmp_path, CITY)
    with pytest.raises(SettingsError) as refused:
        make(tmp_path, COUNTY)
    assert "--pseudonym-from" in refused.value.hint
    assert "--new-pseudonym-key" in refused.value.hint
    assert not (tmp_path / COUNTY).exists()


def test_the_only_county_makes_the_key(tmp_path: Path) -> None:
    """Nobody to share with, nothing to ask."""
    one = DemoPlace.slice((CITY, COUNTY))
    make(tmp_path, CITY, one)
    assert NodeFolder(make(tmp_path, COUNTY, one)).pseudonym_key.exists()


@pytest.mark.parametrize(
    ("node", "more"),
    [
        (COUNTY, {"pseudonym_from": True, "new_pseudonym_key": True}),
        (COUNTY, {"pseudonym_from": True}),
        (TOWNSHIP, {"new_pseudonym_key": True}),
    ],
)
def test_a_key_that_cannot_be_is_refused(
    tmp_path: Path, node: NodeId, more: dict[str, object]
) -> None:
    """Both at once, a folder that holds none, a node that needs none."""
    city = make(tmp_path, CITY)
    if node is TOWNSHIP:
        make(tmp_path, COUNTY, new_pseudonym_key=True)
    if "pseudonym_from" in more:
        more = {**more, "pseudonym_from": city}
    with pytest.raises(SettingsError):
        make(tmp_path, node, TWO_COUNTIES, **more)
    assert not (tmp_path / node).exists()


def test_a_folder_that_is_not_the_parents_makes_nothing(tmp_path: Path) -> None:
    """Whose folder it is stands in its authority; the new folder is not begun."""
    city = make(tmp_path, CITY)
    with pytest.raises(CertificateUnusableError, match=CITY):
        make(tmp_path, TOWNSHIP, parent_data=city)
    assert not (tmp_path / TOWNSHIP).exists()


def opened(folder: Path) -> OpenStore:
    """The store as a starting node opens it."""
    return open_store(folder, load_settings(folder), TWO_COUNTIES, load_profile("village"), CLOCK)


def test_a_gm_node_stores_and_reads(tmp_path: Path) -> None:
    """SM4 seals, SM3 finds, also after a restart."""
    folder = make(tmp_path, CITY, suite=Suite.GM)
    caller = local_operator(CITY, TWO_COUNTIES, "test")
    who = NewResident(
        None, "赵钱", "female", "1980-01-01", (NewIdentifier("identity_number", NUMBER),)
    )
    store = opened(folder)
    (resident_id,) = store.storage.put_bundle(caller, Bundle("gm-1", (who,), ())).resident_ids
    store.durable_head()
    store.close()

    again = opened(folder)
    try:
        found = again.storage.find_resident(caller, "identity_number", NUMBER)
        read = again.storage.resident(caller, resident_id)
        with again.engine.connect() as connection:
            suites = connection.exec_driver_sql("SELECT DISTINCT suite FROM data_keys").all()
    finally:
        again.close()
    assert found is not None
    assert read is not None
    assert (found.resident_id, read.name) == (resident_id, "赵钱")
    assert suites == [("gm",)]
    assert "赵钱".encode() not in (folder / "store.db").read_bytes()


def test_the_suite_of_a_store_stays(tmp_path: Path) -> None:
    """Under another keyed hash nobody stored would be found: the start is refused."""
    folder = make(tmp_path, CITY, suite=Suite.GM)
    opened(folder).close()
    save_settings(folder, load_settings(folder).model_copy(update={"suite": "intl"}))
    with pytest.raises(SettingsError) as refused:
        opened(folder)
    assert "suite: gm" in refused.value.hint


def test_credentials_are_issued_for_a_node_made_by_hand(tmp_path: Path) -> None:
    """The address is where the node listens, or says it does while it runs, or what is given."""
    folder = make(tmp_path, CITY)

    def issue(name: str, address: str | None = None) -> str:
        credentials_of(
            folder,
            CallerKind.ANALYST,
            name,
            tmp_path / name,
            clock=CLOCK,
            days=3,
            address=address,
        )
        said = load_credentials(tmp_path / name)
        assert said.server_name == TWO_COUNTIES.dns_name(CITY)
        assert said.principal == f"spiffe://linfen/{CITY}/analyst/{name}"
        return said.address

    assert issue("idle") == LISTEN
    assert issue("named", "fenhe.example:9") == "fenhe.example:9"
    (folder / "run.json").write_text('{"listen": "127.0.0.1:5001"}')
    assert issue("runs") == "127.0.0.1:5001"
    with pytest.raises(KeyFileExistsError):
        issue("runs")
    with pytest.raises(PeerIdentityError):
        issue("Not A Name")


def test_credentials_are_not_issued_in_a_revoked_name(tmp_path: Path) -> None:
    """Nobody would take them; another name, and the same name of another kind, are good."""
    folder = make(tmp_path, CITY)
    store = opened(folder)
    files = NodeFolder(folder).tls
    signer = Signer(
        private_key_from_pem(read_secret(files.private_key)),
        certificates_from_pem(files.chain.read_bytes()),
    )
    named = f"spiffe://linfen/{CITY}/client/his"
    word = Word(CITY, 1, Target.CALLER, CITY, (), (named,), 0, "lost", "an operator", 1)
    entry = sign_entry(signer, word)
    row = {
        "digest": entry.digest,
        "signer": CITY,
        "number": 1,
        "entry": entry.raw,
        "received_at": 1,
        "source": CITY,
    }
    with store.engine.begin() as connection:
        connection.execute(REVOCATION.revocations.insert(), row)
    store.close()

    def issue(kind: CallerKind, name: str) -> None:
        credentials_of(folder, kind, name, tmp_path / f"{kind}-{name}", clock=CLOCK, days=3)

    with pytest.raises(PeerRevokedError) as refused:
        issue(CallerKind.CLIENT, "his")
    assert "another" in refused.value.hint
    assert not (tmp_path / "client-his").exists()
    issue(CallerKind.CLIENT, "his-2")
    issue(CallerKind.ANALYST, "his")


def test_a_database_that_does_not_answer_is_started_first(tmp_path: Path) -> None:
    """It alone knows which names are revoked; nothing is issued without it."""
    folder = make(tmp_path, CITY)
    nobody = "mysql+pymysql://fenhe:none@127.0.0.1:1/fenhe"
    save_settings(folder, load_settings(folder).model_copy(update={"database": nobody}))
    with pytest.raises(SettingsError) as refused:
        credentials_of(folder, CallerKind.CLIENT, "his", tmp_path / "c", clock=CLOCK, days=3)
    assert "database" in refused.value.hint
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "0.0.0.0:4510"])
def test_an_address_nobody_can_call_is_asked_for(tmp_path: Path, listen: str) -> None:
    """Any port, or every address of the machine: the caller must be told another way."""
    folder = make(tmp_path, CITY, listen=listen)
    with pytest.raises(SettingsError) as refused:
        credentials_of(folder, CallerKind.CLIENT, "his", tmp_path / "c", clock=CLOCK, days=3)
    assert "--address" in refused.value.hint
    assert not (tmp_path / "c").exists()


def test_a_demo_used_again_has_new_credentials(tmp_path: Path) -> None:
    """Those of an earlier run may have expired; ports are new as well."""
    codes = (CITY, COUNTY)
    place, _ = DemoPlace.open(tmp_path / "demo", "sqlite", CLOCK, codes)
    place.complete()
    folder = place.credentials_dir(f"analyst-{CITY}")
    before = (folder / "cert.pem").read_bytes()
    place, existed = DemoPlace.open(tmp_path / "demo", "sqlite", Later(20), codes)
    assert existed
    assert (folder / "cert.pem").read_bytes() != before
    said = yaml.safe_load((folder / "credentials.yaml").read_text())
    assert said["address"] == place.address(CITY)


def test_a_demo_whose_nodes_have_expired_says_how_to_begin_anew(tmp_path: Path) -> None:
    """After a year the nodes' own certificates end."""
    place, _ = DemoPlace.open(tmp_path / "demo", "sqlite", CLOCK, (CITY, COUNTY))
    place.complete()
    with pytest.raises(SettingsError) as refused:
        DemoPlace.open(tmp_path / "demo", "sqlite", Later(366), (CITY, COUNTY))
    assert f"rm -r {tmp_path / 'demo'}" in refused.value.hint


class Later:
    """A clock some days ahead."""

    def __init__(self, days: int) -> None:
        self._ms = days * 86_400_000

    def now_ms(self) -> int:
        return CLOCK.now_ms() + self._ms

    def monotonic_ms(self) -> int:
        return CLOCK.monotonic_ms()
