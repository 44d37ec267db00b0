"""The schema's history, applied by the program itself (`migrate`); works from any folder.

A migration never imports the specs: it says what the schema was, also after they have changed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine

from node.storage.errors import SchemaNewerError
from node.storage.tables import CHANGELOG
from replication.changelog import ensure_log

__all__ = ["head_revision", "migrate", "revision_of"]

_FOLDER: Final = Path(__file__).resolve().parent


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def head_revision() -> str:
    """The revision this program works with."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    return str(head)


def revision_of(engine: Engine) -> str | None:
    """The revision the database stands at; None: nothing was migrated there."""
    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def migrate(engine: Engine, revision: str | None = None) -> None:
    """Bring the schema to this program's revision; does nothing where it stands there.

    On SQLite a failed migration leaves nothing behind; MySQL commits each statement of it.

    Args:
        engine: Of the database.
        revision: Stop at this earlier one, for rows that were kept under it.

    Raises:
        SchemaNewerError: A newer program migrated the database.
    """
    config = _config()
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    held = revision_of(engine)
    if held is not None and held not in known:
        raise SchemaNewerError(f"the database stands at revision {held}, unknown to this program")
    wanted = revision or head_revision()
    if wanted not in known:
        raise SchemaNewerError(f"rows of revision {wanted} are unknown to this program")
    if held == wanted:
        return
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, wanted)
        ensure_log(connection, CHANGELOG)
