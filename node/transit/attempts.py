"""A handler's work in a savepoint: what is refused leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection

from hierarchy_config.errors import FenheError

__all__ = ["attempted"]


def attempted(connection: Connection, work: Callable[[], str]) -> str:
    """Do `work`; "" if it did it, else the code of its refusal, with all that it wrote undone.

    A FenheError that no retry mends refuses with its code. Whatever else is raised goes through,
    and the savepoint with it: the transaction is the caller's to roll back, and after a deadlock
    MySQL knows no savepoint any more.
    """
    savepoint = connection.begin_nested()
    try:
        code = work()
    except FenheError as error:
        if error.retryable:
            raise
        code = error.code
    if code:
        savepoint.rollback()
    else:
        savepoint.commit()
    return code
