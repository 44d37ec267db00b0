"""node.yaml: what one installed node is and where its parts lie.

The file is the only source of settings of a running node; nothing below node/app.py reads the
environment. `fenhe node init` writes it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from node.backup.mark import refuse_unfinished
from node.errors import SettingsError
from node.security.key_files import write_public

__all__ = ["SETTINGS_FILE", "NodePaths", "NodeSettings", "load_settings", "save_settings"]

SETTINGS_FILE: Final = "node.yaml"
_ADDRESS = r"^[A-Za-z0-9_.\-\[\]:]+:\d{1,5}$"
_DOOR = rf"{_ADDRESS}|^off$"
_DIRECTORY = r"^(file:.+|consul://[A-Za-z0-9_.\-\[\]:]+:\d{1,5})$"
_HTTPS = r"^https://.+$"
_REDIS = r"^(rediss?|unix)://.+$"


def _word(value: object) -> object:
    """YAML reads a bare on or off as a truth value."""
    return {True: "on", False: "off"}.get(value) if isinstance(value, bool) else value


KeyWord = Annotated[str, Field(min_length=1, max_length=4096)]


class NodeSettings(BaseModel):
    """The keys of node.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    node_id: Annotated[str, Field(pattern=r"^\d{4,12}$")]
    """Division code of this node; must stand in the region file."""
    region: str = "region.yaml"
    """Region file, relative to the data folder."""
    profile: str = "profile.yaml"
    """Hardware profile: a file of the data folder, or the name of a shipped one."""
    listen: Annotated[str, Field(pattern=_ADDRESS)]
    """Address of the gRPC server, host:port; port 0 lets the system choose."""
    door_listen: Annotated[str, Field(pattern=_DOOR)] | None = None
    """Address of the side door of a node with children, host:port, or off; absent: the host of
    listen, and the port after its port."""
    parent_door: Annotated[str, Field(pattern=_ADDRESS)] | None = None
    """Address of the parent's side door, host:port; absent: the host where the parent is dialled,
    and the port after its port."""
    renewal_grace_days: Annotated[int, Field(ge=0, le=3_650)] = 365
    """Days after the end of a child's certificate for which it is renewed at the door."""
    database: str = "sqlite:///store.db"
    """SQLAlchemy URL; a relative SQLite path lies in the data folder."""
    parent_endpoint: Annotated[str, Field(pattern=_ADDRESS)] | None = None
    """Where the parent is reached, host:port; absent: as the region file says."""
    directory: Annotated[str, Field(pattern=_DIRECTORY)] | None = None
    """Where nodes find each other: file:FOLDER, or consul://host:port; absent: nowhere."""
    redis_url: Annotated[str, Field(pattern=_REDIS)] | None = None
    """Redis server for kept answers, where the profile has one; absent: kept in the process."""
    suite: Annotated[str, Field(pattern="^(intl|gm)$")] = "intl"
    """Algorithms of what is stored: chosen before the first start, and fixed from then on."""
    key_command: Annotated[tuple[KeyWord, ...], Field(min_length=1, max_length=32)] | None = None
    """Program and arguments of an outside key service, which wraps the node's key; absent: the key
    lies in keys/node.key."""
    key_rotation_days: Annotated[int, Field(ge=0, le=36_500)] = 365
    """Age in days at which a table's data key is replaced by itself; 0: never."""
    key_rotation_seals: Annotated[int, Field(ge=1_000, le=1 << 32)] = 1 << 31
    """Seals under one data key at which it is replaced by itself."""
    matching: Annotated[str, Field(pattern="^(auto|on|off)$"), BeforeValidator(_word)] = "auto"
    """Whether this node finds residents who may be one person; auto: where the extra is installed
    and the profile has memory for as many as are held."""
    metrics_listen: Annotated[str, Field(pattern=_ADDRESS)] | None = None
    """Where Prometheus metrics are served (loopback advised); absent: nowhere."""
    alarm_after_s: Annotated[int, Field(ge=3, le=86_400)] = 600
    """Seconds that a neighbour's backlog may stand still before an alarm is raised."""
    oidc_issuer: Annotated[str, Field(pattern=_HTTPS)] | None = None
    """Whose tokens stand in for a password (OpenID Connect), an https address; absent: nobody's."""
    oidc_audience: str = "fenhe"
    """What the issuer calls this node in its tokens."""
    oidc_jwks: str = "oidc.json"
    """The issuer's keys: an https address, or a file, relative to the data folder."""
    log_level: Annotated[str, Field(pattern="^(debug|info|warning|error)$")] = "info"
    """Least level that is logged."""


class NodePaths:
    """Where things lie in a data folder."""

    def __init__(self, data_dir: Path) -> None:
        self.data = data_dir
        self.settings = data_dir / SETTINGS_FILE
        self.former_region = data_dir / "region.former.yaml"
        self.keys = data_dir / "keys"
        self.certs = data_dir / "certs"
        self.columnar = data_dir / "columnar"
        self.match_model = data_dir / "match_model.json"
        self.lock = data_dir / "lock"
        self.run = data_dir / "run.json"
        self.log = data_dir / "node.log"


def load_settings(data_dir: Path) -> NodeSettings:
    """Read and check node.yaml.

    Raises:
        SettingsError: The file is missing or wrong; every fault is named.
        RestoreUnfinishedError: A restore into this folder has not ended.
    """
    refuse_unfinished(data_dir)
    path = data_dir / SETTINGS_FILE
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsError(
            f"{path} is missing", hint="Make the data folder with `fenhe node init` first."
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not YAML: {error}") from error
    try:
        return NodeSettings.model_validate(raw)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'file'}: {fault['msg']}"
            for fault in error.errors(include_url=False, include_input=False)
        )
        raise SettingsError(f"{path}: {faults}") from error


def save_settings(data_dir: Path, settings: NodeSettings) -> None:
    """Write node.yaml, durably; keys that stand at their default are left out."""
    values = settings.model_dump(exclude_defaults=True)
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    # A URL in it may hold a password.
    write_public(data_dir / SETTINGS_FILE, text.encode("utf-8"), 0o600)
