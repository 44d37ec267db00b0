"""What was written as a name, a number, a telephone or an address is nowhere in clear.

Not in a data folder, a file of the database, a backup, a log, a stick, nor on a line; and no
password stands in a process list.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest

import protos.fenhe.care.v1.care_pb2 as care
import protos.fenhe.empi.v1.empi_pb2 as empi
from node.demo.place import DemoPlace
from node.demo.processes import spawned
from node.records.canaries import MARK
from node.security.tls import GrpcLimits, channel_credentials, channel_options
from node.settings import load_settings, save_settings
from protos.fenhe.care.v1 import care_pb2_grpc
from protos.fenhe.empi.v1 import empi_pb2_grpc
from tests.services.listening import Listener
from tests.services.people import DAY, Person, put_request
from tests.services.region import CALL_S, Region, nodes
from tests.services.stores import opened
from tests.services.test_commands import fenhe
from tests.services.waiting import until

COUNTY, TOWNSHIP, VILLAGE, OTHER = NODES = nodes(
    "141002", "141002104", "141002104200", "141002104201"
)
FREE_TEXT = "尧都旧院西厢0417"
PEOPLE = [Person(number, VILLAGE) for number in range(31, 51)]


class Place:
    """A region whose every line is listened to."""

    def __init__(self, root: Path, database: str) -> None:
        self.root = root
        self.database = database
        self.region = Region(root / "region", NODES, database, launch=spawned)
        self.lines: dict[str, Listener] = {}
        self.commands: list[bytes] = []

    def open(self) -> None:
        """Put a listener before every parent and before the village's clients; start all."""
        place = self.region.place
        for child, parent in ((TOWNSHIP, COUNTY), (VILLAGE, TOWNSHIP), (OTHER, TOWNSHIP)):
            line = self.lines[child] = Listener(place.address(parent))
            folder = place.node_dir(child)
            changes = {"parent_endpoint": line.address}
            save_settings(folder, load_settings(folder).model_copy(update=changes))
        self.region.start()
        self.region.linked(TOWNSHIP, VILLAGE, OTHER)
        self.lines["clients"] = Listener(place.address(VILLAGE))

    def clients(self) -> grpc.Channel:
        """A channel to the village over the line that is listened to."""
        who = self.region.credentials("operator", VILLAGE)
        options = channel_options(who.server_name, GrpcLimits())
        address = self.lines["clients"].address
        return grpc.secure_channel(address, channel_credentials(who.tls), options=options)


@pytest.fixture(scope="module", params=["sqlite", pytest.param("mysql", marks=pytest.mark.mariadb)])
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    """Everything that writes something down has done so; then all is stopped."""
    made = Place(tmp_path_factory.mktemp("markers"), request.param)
    with ExitStack() as ended, made.region:
        made.open()
        for line in made.lines.values():
            ended.callback(line.close)
        _write(made)
        _keep(made)
        made.commands = command_lines(made.region)
        made.region.fleet.stop()
        yield made


def _write(place: Place) -> None:
    """Residents, records with free text, a lookup, a letter, bad input and a canary."""
    with place.clients() as channel:
        records = care_pb2_grpc.RecordServiceStub(channel)
        request = put_request("markers-1", *PEOPLE)
        for record in request.records:
            if record.HasField("encounter"):
                record.encounter.department = FREE_TEXT
        records.PutBundle(request, timeout=CALL_S)
        residents = empi_pb2_grpc.ResidentServiceStub(channel)
        number = empi.Identifier(system="identity_number", value=PEOPLE[0].identity_number)
        found = residents.Find(empi.FindResidentRequest(identifier=number), timeout=CALL_S)
        assert found.resident.name == PEOPLE[0].name
        wrong = put_request("markers-2", PEOPLE[1])
        wrong.residents[0].birth_date = PEOPLE[1].phone
        with pytest.raises(grpc.RpcError) as refused:
            records.PutBundle(wrong, timeout=CALL_S)
        said = str(refused.value)
        assert not any(marker in said for marker in PEOPLE[1].markers)
    away = care.PutBundleRequest(
        request_id="markers-3",
        records=[
            care.Record(
                record_id=PEOPLE[2].record_id("away"),
                resident_id=PEOPLE[2].resident_id,
                home_node=VILLAGE,
                encounter=care.Encounter(
                    **{"class": "ambulatory"}, started_on=DAY, department=FREE_TEXT
                ),
            )
        ],
    )
    place.region.put(OTHER, away)
    credentials = place.region.place.credentials_dir(f"operator-{VILLAGE}")
    assert fenhe("doctor", "canary", "plant", "--as", str(credentials)).returncode == 0
    residents_above = len(PEOPLE) + 1
    until("all is above", lambda: held(place.region.place, residents_above))


def held(place: DemoPlace, residents: int) -> bool:
    """Whether the county holds them all, the canary too, and the letter has come home."""
    with opened(place, COUNTY) as above, opened(place, VILLAGE) as home:
        return above.tables()["residents"] == residents and home.tables()["encounters"] > (
            len(PEOPLE) + 1
        )


def _keep(place: Place) -> None:
    """A backup of each node, and a stick for the township while nothing else can carry."""
    key, shelf = place.root / "backup.key", place.root / "shelf"
    assert fenhe("backup", "key", "new", str(key)).returncode == 0
    for node in NODES:
        folder = place.region.place.node_dir(node)
        words = ("--data", str(folder), "--to", str(shelf / node), "--key", str(key))
        done = fenhe("backup", *words)
        assert done.returncode == 0, done.stderr
    place.region.fleet.kill(TOWNSHIP)
    place.region.put(VILLAGE, put_request("markers-4", Person(60, VILLAGE)))
    credentials = place.region.place.credentials_dir(f"operator-{VILLAGE}")
    stick = (TOWNSHIP, str(place.root / "stick"), "--as", str(credentials))
    done = fenhe("replication", "export", *stick)
    assert done.returncode == 0, done.stderr
    place.region.start(TOWNSHIP)


def command_lines(region: Region) -> list[bytes]:
    """The command line and the title of every process that belongs to the region."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            try:
                line = (process / "cmdline").read_bytes()
            except OSError:
                continue
            if bytes(region.place.root) in line:
                found.append(line)
    return found


def markers() -> list[bytes]:
    """What must be nowhere, in the two ways in which a text is written to a file."""
    texts = [marker for person in (*PEOPLE, Person(60, VILLAGE)) for marker in person.markers]
    return [
        text.encode(code) for text in (*texts, FREE_TEXT, MARK) for code in ("utf-8", "utf-16-le")
    ]


def files_below(folder: Path) -> list[Path]:
    """Every file."""
    return [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]


def test_no_marker_is_in_a_file(place: Place) -> None:
    """Data folders, database files, logs, columnar files, backups, the stick."""
    sought = markers()
    paths = files_below(place.root)
    assert {"stick", "node.log", "tls.pem"} <= {path.name for path in paths}
    assert any(path.suffix == ".parquet" or "store" in path.name for path in paths)
    for path in paths:
        content = path.read_bytes()
        for marker in sought:
            assert marker not in content, (path, marker.decode(errors="replace"))


def test_what_is_looked_for_would_be_found(place: Place) -> None:
    """Ids stand in the tables in clear: the search does read the database."""
    wanted = PEOPLE[0].resident_id.encode()
    folder = place.root / "region"
    assert any(wanted in path.read_bytes() for path in files_below(folder))


def test_no_marker_was_on_a_line(place: Place) -> None:
    """Neither between nodes nor between a clinic and its node; nor an id of anybody."""
    for name, line in place.lines.items():
        heard = bytes(line.heard)
        assert len(heard) > 10_000, name
        for marker in (*markers(), PEOPLE[0].resident_id.encode()):
            assert marker not in heard, (name, marker)


def test_no_secret_stands_in_a_process_list(place: Place) -> None:
    """Nodes and the database server run, and no command line holds the password or a key."""
    lines = place.commands
    assert len(lines) >= len(NODES)
    secrets = [path.read_bytes().strip() for path in place.root.rglob("keys/*.key")]
    if place.database == "mysql":
        secrets.append((place.root / "region" / "mariadb" / "password").read_bytes().strip())
    assert len(secrets) > len(NODES)
    for line in lines:
        assert not any(secret in line for secret in secrets), line


def test_everything_that_was_made_is_its_owners_alone(place: Place) -> None:
    """No file of a node's folder, of the backups or the stick can be opened by anybody else."""
    for node in NODES:
        folder = place.region.place.node_dir(node)
        assert folder.stat().st_mode & 0o077 == 0, folder
    for path in (*files_below(place.root / "shelf"), place.root / "stick"):
        assert path.stat().st_mode & 0o077 == 0, path
