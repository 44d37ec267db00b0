"""The configuration of a node's own MariaDB server, from its profile.

What makes an acknowledged write safe is not in the profile: it is the same at every level.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from hardware_profiles.errors import ProfileError
from hardware_profiles.profile import HardwareProfile

__all__ = ["SocketPathError", "mariadb_configuration"]

_SOCKET_PATH_BYTES_MAX: Final = 107


class SocketPathError(ProfileError):
    """A path cannot stand in a MariaDB configuration."""

    code = "MARIADB_PATH_INVALID"
    default_hint = "Choose a shorter data folder, without quotes or line breaks in its name."


def mariadb_configuration(
    profile: HardwareProfile, data_dir: Path, port: int | None, socket: Path
) -> str:
    """Return the text of a my.cnf for one private server.

    Args:
        profile: Gives the memory and the connections.
        data_dir: The server's data folder.
        port: TCP port on 127.0.0.1; None: reachable by the socket alone.
        socket: Path of the Unix socket, at most 107 bytes.

    Raises:
        SocketPathError: A path is too long or holds a character that the format cannot carry.
    """
    if len(bytes(socket)) > _SOCKET_PATH_BYTES_MAX:
        raise SocketPathError(f"the socket path is longer than {_SOCKET_PATH_BYTES_MAX} bytes")
    mariadb = profile.mariadb
    network = ["skip-networking"]
    if port is not None:
        # Only this machine's node talks to it.
        network = ["bind-address = 127.0.0.1", f"port = {port}"]
    settings = [
        f"datadir = {_quoted(data_dir)}",
        f"socket = {_quoted(socket)}",
        f"pid-file = {_quoted(data_dir / 'mariadbd.pid')}",
        *network,
        "skip-name-resolve",
        "local-infile = 0",
        "",
        "# Acknowledged means on disk.",
        "innodb_flush_log_at_trx_commit = 1",
        "innodb_doublewrite = ON",
        "sync_binlog = 1",
        "# Fenhe's change log replicates; a binary log would only be a second copy of the data.",
        "skip-log-bin",
        "",
        "# Text compares by its bytes, as in SQLite, so that both stores find the same rows.",
        "character-set-server = utf8mb4",
        "collation-server = utf8mb4_bin",
        "# A reader of the change log sees what is committed, without gap locks.",
        "transaction-isolation = READ-COMMITTED",
        "default-storage-engine = InnoDB",
        "sql-mode = STRICT_TRANS_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION",
        "innodb_strict_mode = ON",
        "default-time-zone = '+00:00'",
        "# The largest log payload and its escaping.",
        f"max_allowed_packet = {max(16, 4 * profile.rpc_max_bytes >> 20)}M",
        "",
        f"# Sizes of the profile for a {profile.level}.",
        f"innodb_buffer_pool_size = {mariadb.innodb_buffer_pool_mb}M",
        f"innodb_log_file_size = {mariadb.innodb_log_file_mb}M",
        f"max_connections = {mariadb.max_connections}",
        f"thread_cache_size = {profile.database_pool}",
        "performance_schema = OFF",
    ]
    return "\n".join(["[mariadbd]", *settings, ""])


def _quoted(path: Path) -> str:
    text = str(path)
    if any(character in text for character in '"\\\n\r') or not text.isprintable():
        raise SocketPathError("a path holds a quote, a backslash or a line break")
    return f'"{text}"'
