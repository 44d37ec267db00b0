"""Whose disk must have room: the database server's too, where it is on this machine."""

from __future__ import annotations

from node.guards import server_folder
from tests.databases import Database


def test_the_servers_folder_is_found(database: Database) -> None:
    """SQLite's file lies in the data folder; a MariaDB here says where its own is."""
    folder = server_folder(database.engine)
    if database.kind == "sqlite":
        assert folder is None
    else:
        assert folder is not None
        assert (folder / "ibdata1").exists()
