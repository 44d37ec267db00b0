"""No secret stands on a command line: files and the terminal take its place."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main
from typer.core import TyperCommand, TyperGroup, TyperOption

from node.cli.main import app
from node.cli.secrets import SecretOnCommandLineError, database_of, spoken
from node.security.errors import KeyFileExposedError
from node.settings import NodeSettings, save_settings

URL = "mysql+pymysql://fenhe:hunter2@127.0.0.1/fenhe"

# Options whose value could be a secret, and why it is none. A new one has to be judged here.
JUDGED = {
    "--key": "the path of a file that is refused if others may read it",
    "--new-pseudonym-key": "a flag",
    "--code": "of one use, for one machine, for a day; - asks for it",
    "--new-password": "a flag; the password is asked for",
    "--oidc-token": "the path of a file, or - for standard input",
    "--mapping": "the name of a mapping that comes with the program, or the path of a file",
    "--database": "refused with a password in it; @FILE holds that",
}
SUSPECTS = ("key", "code", "secret", "password", "passphrase", "token", "database", "url", "pin")


def options(group: TyperGroup) -> Iterator[str]:
    """Every option of every command."""
    for command in group.commands.values():
        if isinstance(command, TyperGroup):
            yield from options(command)
        if isinstance(command, TyperGroup | TyperCommand):
            for parameter in command.params:
                if isinstance(parameter, TyperOption):
                    yield from parameter.opts


def test_every_option_that_could_be_a_secret_is_judged() -> None:
    """By its name; what is judged and gone is taken out."""
    root = typer.main.get_command(app)
    assert isinstance(root, TyperGroup)
    found = {each for each in options(root) if any(word in each for word in SUSPECTS)}
    assert found == JUDGED.keys()


def test_a_password_in_a_url_is_refused_unseen() -> None:
    """And not repeated in the refusal."""
    with pytest.raises(SecretOnCommandLineError) as refused:
        database_of(URL)
    assert "hunter2" not in f"{refused.value.message} {refused.value.hint}"


@pytest.mark.parametrize("said", ["sqlite:///store.db", "mysql+pymysql://fenhe@h/db", "nonsense"])
def test_a_url_without_a_password_is_taken(said: str) -> None:
    """What is no URL at all is for whoever opens it."""
    assert database_of(said) == said


def test_a_file_holds_the_url(tmp_path: Path) -> None:
    """Its owner's alone, or it is refused."""
    file = tmp_path / "url"
    file.write_text(URL + "\n", encoding="utf-8")
    file.chmod(0o600)
    assert database_of(f"@{file}") == URL
    file.chmod(0o644)
    with pytest.raises(KeyFileExposedError):
        database_of(f"@{file}")


def test_a_code_is_read_where_it_is_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the input if there is no terminal; as it is if it stands on the line."""
    monkeypatch.setattr("sys.stdin", io.StringIO("1410-0000-0000-000\n"))
    assert spoken("-") == "1410-0000-0000-000"
    assert spoken("1410-1") == "1410-1"


def test_settings_are_their_owners_alone(tmp_path: Path) -> None:
    """A URL in node.yaml may hold a password."""
    settings = NodeSettings(node_id="1410", listen="127.0.0.1:0", database=URL)
    save_settings(tmp_path, settings)
    assert (tmp_path / "node.yaml").stat().st_mode & 0o077 == 0
