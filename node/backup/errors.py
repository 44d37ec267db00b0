"""Errors of backup and restore.

BackupError
├── BackupKeyError         the key file is no key, or its passphrase is too short
├── BackupKeyWrongError    a backup was made with another key
├── BackupMissingError     the place holds no such backup
├── BackupDamagedError     a part of it is gone, altered, or of another backup
├── BackupPlaceError       the place cannot be reached or written to
├── BackupRunningError     another process makes a backup of this node
├── RestoreTargetError     something is there already
└── RestoreUnfinishedError a data folder was being restored when the restore died
"""

from __future__ import annotations

from hierarchy_config.errors import Fault
from node.errors import NodeError

__all__ = [
    "BackupDamagedError",
    "BackupError",
    "BackupKeyError",
    "BackupKeyWrongError",
    "BackupMissingError",
    "BackupPlaceError",
    "BackupRunningError",
    "RestoreTargetError",
    "RestoreUnfinishedError",
]


class BackupError(NodeError):
    """Base of this room's errors."""

    code = "BACKUP_ERROR"
    fault = Fault.OPERATOR


class BackupKeyError(BackupError):
    """The file given with --key holds no key and no passphrase that could protect a backup."""

    code = "BACKUP_KEY"
    default_hint = (
        "Make a key with `fenhe backup key new FILE`, or write a passphrase of at least 16 "
        "characters into a file of mode 0600."
    )


class BackupKeyWrongError(BackupError):
    """A backup was made with another key; nothing was changed."""

    code = "BACKUP_KEY_WRONG"
    default_hint = "Give the key or passphrase file it was made with; no other opens it."


class BackupMissingError(BackupError):
    """The place holds no backup of that number, or none at all."""

    code = "BACKUP_MISSING"
    default_hint = "See what is there: `fenhe backup list --from FOLDER`."


class BackupDamagedError(BackupError):
    """A part of a backup is gone, altered, or belongs to another; nothing was changed."""

    code = "BACKUP_DAMAGED"
    default_hint = (
        "Restore from another copy, or from an earlier backup with --at; `fenhe backup check` "
        "tells which are whole. Then make a full backup."
    )


class BackupPlaceError(BackupError):
    """The folder or object store cannot be reached, read or written to."""

    code = "BACKUP_PLACE"
    retryable = True
    default_hint = (
        "Check the path or URL and the rights; an object store needs its fsspec package (such as "
        "s3fs) and credentials."
    )


class BackupRunningError(BackupError):
    """Another process makes a backup of this node."""

    code = "BACKUP_RUNNING"
    retryable = True
    default_hint = "Wait until it has ended."


class RestoreTargetError(BackupError):
    """The folder or the database to restore into holds something; nothing was changed."""

    code = "RESTORE_TARGET_IN_USE"
    default_hint = "Restore into an empty or new folder, and into a database without tables."


class RestoreUnfinishedError(BackupError):
    """A restore into this data folder did not end: it is not a whole node."""

    code = "RESTORE_UNFINISHED"
    default_hint = "Run the same `fenhe restore` again: it starts over. Or delete the folder."
