"""A SELECT that is compiled once, its lists included, and then only carried out.

SQLAlchemy renders a list of parameters anew at every execution, which for a short statement costs
more than the database's work. Here the text is kept for each dialect and each length of the lists.
Only for parameters that the driver takes as they are: text and numbers.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, CursorResult, Select

__all__ = ["ReadySelect", "padded"]

_TEXTS_MAX: Final = 256


@dataclass(frozen=True, slots=True)
class _Text:
    """`names`: of the parameters in order; None: the driver takes them by name."""

    sql: str
    names: tuple[str, ...] | None
    constants: Mapping[str, Any]


class ReadySelect:
    """One statement; safe from several threads."""

    def __init__(self, statement: Select[Any]) -> None:
        self._statement = statement
        self._texts: dict[tuple[Any, ...], _Text] = {}

    def execute(self, connection: Connection, wanted: Mapping[str, Any]) -> CursorResult[Any]:
        """Its rows, with the driver's own values; a list in `wanted` is one of the statement's."""
        given: dict[str, Any] = {}
        lengths: list[tuple[str, int]] = []
        for name, value in wanted.items():
            if isinstance(value, list):
                lengths.append((name, len(value)))
                given.update((f"{name}_{place}", each) for place, each in enumerate(value, 1))
            else:
                given[name] = value
        key = (connection.dialect.name, *lengths)
        text = self._texts.get(key)
        if text is None:
            text = self._compiled(connection, wanted)
            if len(self._texts) >= _TEXTS_MAX:
                self._texts.clear()
            self._texts[key] = text
        values = {**given, **text.constants}
        if text.names is None:
            return connection.exec_driver_sql(text.sql, values)
        return connection.exec_driver_sql(text.sql, tuple([values[name] for name in text.names]))

    def _compiled(self, connection: Connection, wanted: Mapping[str, Any]) -> _Text:
        compiled = self._statement.compile(dialect=connection.dialect)
        state = compiled.construct_expanded_state(wanted)
        given = {*wanted, *itertools.chain(*state.parameter_expansion.values())}
        # What the statement itself says is a parameter too.
        constants = {name: each for name, each in state.parameters.items() if name not in given}
        names = tuple(state.positiontup) if state.positiontup is not None else None
        return _Text(state.statement, names, constants)


def padded(values: list[str]) -> list[str]:
    """The values, the last of them so often that their number is a power of two: few lengths."""
    more = (1 << (len(values) - 1).bit_length()) - len(values)
    return values + values[-1:] * more
