"""The schema that the migrations make is the one the program works with."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, inspect, text

from node.storage import METADATA, migrate, migrations
from node.storage.errors import SchemaNewerError
from node.storage.migrations import head_revision, revision_of, revisions
from tests.databases import Database

_BETWEEN_COLUMNS = re.compile(r",\s+(?![^(]*\))")


def _schema(engine: Engine) -> dict[str, list[str]]:
    """Every table as the database itself describes it, column order and charset included."""
    described: dict[str, list[str]] = {}
    inspector = inspect(engine)
    with engine.connect() as connection:
        for table in sorted(set(inspector.get_table_names()) - {"alembic_version"}):
            if engine.dialect.name == "sqlite":
                query = text("SELECT sql FROM sqlite_master WHERE tbl_name = :name")
                texts = connection.execute(query, {"name": table}).scalars()
            else:
                texts = connection.execute(text(f"SHOW CREATE TABLE `{table}`")).scalars(
                    "Create Table"
                )
            described[table] = sorted(
                line.strip().rstrip(",")
                for sql in texts
                if sql
                # SQLite writes an added column behind the last one, on the same line.
                # It quotes the name of a table that was made anew under another one.
                for line in _BETWEEN_COLUMNS.sub(",\n", sql.replace('"', "")).splitlines()
            )
    return described


def test_a_migrated_schema_is_the_declared_one(database: Database) -> None:
    """Columns, types, charsets and indexes agree, so no declaration goes unmigrated."""
    migrate(database.engine)
    migrated = _schema(database.engine)
    METADATA.drop_all(database.engine)
    METADATA.create_all(database.engine)

    assert migrated == _schema(database.engine)


def test_migrating_again_changes_nothing(database: Database) -> None:
    """A node migrates at every start."""
    migrate(database.engine)
    migrate(database.engine)

    assert revision_of(database.engine) == head_revision()


def test_the_revisions_are_those_that_alembic_finds() -> None:
    """They are read from the names of the files, without loading Alembic."""
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    config.set_main_option("path_separator", "os")
    found = [each.revision for each in ScriptDirectory.from_config(config).walk_revisions()]
    assert list(revisions()) == found[::-1]


def test_migrates_from_any_folder(
    sqlite_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scripts are found beside the program, wherever it was started."""
    monkeypatch.chdir(tmp_path)

    migrate(sqlite_database.engine)

    assert revision_of(sqlite_database.engine) == head_revision()


def test_refuses_a_database_of_a_newer_program(database: Database) -> None:
    """An older program must not write into a schema it does not know."""
    migrate(database.engine)
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))

    with pytest.raises(SchemaNewerError) as refused:
        migrate(database.engine)

    assert refused.value.code == "SCHEMA_NEWER"
