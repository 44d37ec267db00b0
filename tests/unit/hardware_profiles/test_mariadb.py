"""The generated MariaDB configuration: durable at every level, sized by the profile."""

from __future__ import annotations

import configparser
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pymysql
import pytest

from hardware_profiles import (
    PROFILE_NAMES,
    SocketPathError,
    load_profile,
    mariadb_configuration,
)

DATA = Path("/var/lib/fenhe/mariadb")
SOCKET = Path("/run/fenhe/db.sock")


def parsed(text: str) -> dict[str, str | None]:
    """The settings of the server's section, quotes removed."""
    parser = configparser.ConfigParser(allow_no_value=True, interpolation=None)
    parser.read_string(text)
    assert parser.sections() == ["mariadbd"]
    section = parser["mariadbd"]
    return {key: section[key] and section[key].strip("\"'") for key in section}


@pytest.mark.parametrize("name", PROFILE_NAMES)
def test_acknowledged_means_on_disk_at_every_level(name: str) -> None:
    """No profile can loosen what makes a write durable, nor what a reader of the log sees."""
    settings = parsed(mariadb_configuration(load_profile(name), DATA, 3307, SOCKET))
    assert settings["innodb_flush_log_at_trx_commit"] == "1"
    assert settings["innodb_doublewrite"] == "ON"
    assert settings["sync_binlog"] == "1"
    assert settings["transaction-isolation"] == "READ-COMMITTED"
    assert settings["character-set-server"] == "utf8mb4"
    assert "STRICT_TRANS_TABLES" in str(settings["sql-mode"])


@pytest.mark.parametrize("name", PROFILE_NAMES)
def test_sizes_are_the_profiles(name: str) -> None:
    """Buffer pool, log and connections."""
    profile = load_profile(name)
    settings = parsed(mariadb_configuration(profile, DATA, 3307, SOCKET))
    assert settings["innodb_buffer_pool_size"] == f"{profile.mariadb.innodb_buffer_pool_mb}M"
    assert settings["innodb_log_file_size"] == f"{profile.mariadb.innodb_log_file_mb}M"
    assert settings["max_connections"] == str(profile.mariadb.max_connections)


def test_listens_to_this_machine_only_or_to_its_socket_alone() -> None:
    """A port means 127.0.0.1; no port means no network."""
    village = load_profile("village")
    local = parsed(mariadb_configuration(village, DATA, 3307, SOCKET))
    assert (local["bind-address"], local["port"]) == ("127.0.0.1", "3307")
    assert "skip-networking" not in local
    alone = parsed(mariadb_configuration(village, DATA, None, SOCKET))
    assert "skip-networking" in alone
    assert "port" not in alone


def test_paths_with_spaces_and_hashes_are_kept() -> None:
    """A data folder may be called anything that a quoted value can carry."""
    odd = Path("/srv/Fen He #1")
    settings = parsed(mariadb_configuration(load_profile("village"), odd, None, odd / "s"))
    assert settings["datadir"] == str(odd)


@pytest.mark.parametrize(
    ("data_dir", "socket"),
    [
        (DATA, Path("/" + "x" * 107)),
        (Path('/srv/a"b'), SOCKET),
        (Path("/srv/a\nport=1"), SOCKET),
        (DATA, Path("/run/a\\b")),
    ],
)
def test_refuses_paths_that_it_cannot_carry(data_dir: Path, socket: Path) -> None:
    """A socket's path is at most 107 bytes; no quote or line break can slip in a setting."""
    with pytest.raises(SocketPathError):
        mariadb_configuration(load_profile("village"), data_dir, None, socket)


@pytest.fixture
def server() -> Iterator[Path]:
    """A private MariaDB started with the village's configuration; yields its socket."""
    # Not tmp_path: its length would break the limit of a socket's path.
    with tempfile.TemporaryDirectory(prefix="fenhe-") as name:
        folder = Path(name)
        data, socket, cnf = folder / "data", folder / "s", folder / "my.cnf"
        text = mariadb_configuration(load_profile("village"), data, None, socket)
        cnf.write_text(text, encoding="utf-8")
        defaults = f"--defaults-file={cnf}"
        install = ["mariadb-install-db", defaults, f"--datadir={data}", "--user=root"]
        install += ["--auth-root-authentication-method=normal", "--skip-test-db"]
        subprocess.run(install, check=True, capture_output=True)
        command = ["mariadbd", defaults, "--user=root"]
        with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
            assert process.stderr is not None
            # Ends at the line, or at the end of the output if the server gives up.
            any(b"ready for connections" in line for line in process.stderr)
            yield socket
            process.terminate()


@pytest.mark.mariadb
def test_a_real_server_takes_the_configuration(server: Path) -> None:
    """Asked for its variables, it answers with what was written."""
    with (
        pymysql.connect(unix_socket=str(server), user="root") as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("SHOW GLOBAL VARIABLES")
        variables = dict(cursor.fetchall())
    village = load_profile("village")
    expected = {
        "innodb_flush_log_at_trx_commit": "1",
        "innodb_doublewrite": "ON",
        "sync_binlog": "1",
        "log_bin": "OFF",
        "character_set_server": "utf8mb4",
        "collation_server": "utf8mb4_bin",
        "innodb_buffer_pool_size": str(village.mariadb.innodb_buffer_pool_mb << 20),
        "innodb_log_file_size": str(village.mariadb.innodb_log_file_mb << 20),
        "max_connections": str(village.mariadb.max_connections),
        "max_allowed_packet": str(16 << 20),
        "time_zone": "+00:00",
        "skip_networking": "ON",
        "performance_schema": "OFF",
    }
    assert {name: variables[name] for name in expected} == expected
    assert variables["tx_isolation"] == "READ-COMMITTED"
