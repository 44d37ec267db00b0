"""The schema's history, applied by the program itself (`migrate`); works from any folder.

A migration never imports the specs: it says what the schema was, also after they have changed.
Where nothing is to be migrated Alembic is not loaded: it would be a tenth of a node's start.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Final

from sqlalchemy import Engine, inspect, text

from node.storage.errors import SchemaNewerError
from node.storage.tables import CHANGELOG
from replication.changelog import ensure_log

__all__ = ["head_revision", "migrate", "revision_of", "revisions"]

_FOLDER: Final = Path(__file__).resolve().parent
_FILE: Final = re.compile(r"r([0-9]{4})_[a-z_]+\.py")


@cache
def revisions() -> tuple[str, ...]:
    """Every revision this program knows, in order: each one's file is named after it."""
    found = (_FILE.fullmatch(path.name) for path in (_FOLDER / "versions").iterdir())
    return tuple(sorted(match.group(1) for match in found if match is not None))


def head_revision() -> str:
    """The revision this program works with."""
    return revisions()[-1]


def revision_of(engine: Engine) -> str | None:
    """The revision the database stands at; None: nothing was migrated there."""
    with engine.connect() as connection:
        if not inspect(connection).has_table("alembic_version"):
            return None
        held = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return None if held is None else str(held)


def migrate(engine: Engine, revision: str | None = None) -> None:
    """Bring the schema to this program's revision; does nothing where it stands there.

    On SQLite a failed migration leaves nothing behind; MySQL commits each statement of it.

    Args:
        engine: Of the database.
        revision: Stop at this earlier one, for rows that were kept under it.

    Raises:
        SchemaNewerError: A newer program migrated the database.
    """
    held, wanted = revision_of(engine), revision or head_revision()
    if held is not None and held not in revisions():
        raise SchemaNewerError(f"the database stands at revision {held}, unknown to this program")
    if wanted not in revisions():
        raise SchemaNewerError(f"rows of revision {wanted} are unknown to this program")
    if held != wanted:
        _upgrade(engine, wanted)


def _upgrade(engine: Engine, wanted: str) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, wanted)
        ensure_log(connection, CHANGELOG)
