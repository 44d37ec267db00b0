"""The catalogue of refusals: what each means and the nearest form that is allowed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NoReturn

from federation.errors import QueryRefusedError, Refusal

__all__ = ["REFUSALS", "RefusalRule", "refuse", "shown_name"]


@dataclass(frozen=True, slots=True)
class RefusalRule:
    """One line of the catalogue."""

    meaning: str
    nearest: str


REFUSALS: Mapping[Refusal, RefusalRule] = MappingProxyType(
    {
        Refusal.SYNTAX: RefusalRule(
            "The text is not a SELECT that the planner can read.",
            "SELECT county, COUNT(*) FROM residents GROUP BY county",
        ),
        Refusal.TOO_LONG: RefusalRule(
            "The text is longer than 8,000 characters.",
            "Shorten it; a list of values can often be a range or a LIKE pattern.",
        ),
        Refusal.TOO_DEEP: RefusalRule(
            "The expressions are nested more than 80 deep.",
            "Replace chains of OR by IN, and nested CASE by one CASE with several WHEN.",
        ),
        Refusal.TOO_MANY_LITERALS: RefusalRule(
            "The text holds more than 500 literals.",
            "Use ranges (BETWEEN) or LIKE instead of long lists.",
        ),
        Refusal.MULTIPLE_STATEMENTS: RefusalRule(
            "More than one statement.", "Ask one SELECT at a time."
        ),
        Refusal.NOT_SELECT: RefusalRule(
            "The statement is not a SELECT.", "Only SELECT … FROM a dataset may be asked."
        ),
        Refusal.SET_OPERATION: RefusalRule(
            "UNION, INTERSECT and EXCEPT are not planned.", "Ask each SELECT on its own."
        ),
        Refusal.CTE: RefusalRule(
            "WITH is not planned.", "Write the condition of the WITH part into WHERE."
        ),
        Refusal.SUBQUERY: RefusalRule(
            "A SELECT inside the SELECT is not planned.",
            "Write the inner condition into WHERE of one SELECT.",
        ),
        Refusal.JOIN: RefusalRule(
            "More than one dataset.",
            "Every dataset has home, county, township, sex and birth_year; ask one dataset.",
        ),
        Refusal.NO_DATASET: RefusalRule(
            "There is no FROM.", "Name one dataset: SELECT COUNT(*) FROM residents"
        ),
        Refusal.UNKNOWN_TABLE: RefusalRule(
            "The name after FROM is no dataset.",
            "Datasets: residents, encounters, conditions, observations, medications, "
            "procedures, immunizations.",
        ),
        Refusal.UNKNOWN_COLUMN: RefusalRule(
            "The dataset has no such column.",
            "Every dataset has home, township, county, author, sex and birth_year.",
        ),
        Refusal.STAR: RefusalRule(
            "* would select rows, and rows never leave a node.",
            "Name the columns, or write COUNT(*).",
        ),
        Refusal.IDENTIFIER_SELECTED: RefusalRule(
            "An identifier is selected, grouped, filtered or ordered.",
            "COUNT(DISTINCT resident_id) is the one use of an identifier.",
        ),
        Refusal.DISTINCT: RefusalRule(
            "DISTINCT is only planned in COUNT(DISTINCT resident_id).",
            "Use GROUP BY for distinct values and COUNT(DISTINCT resident_id) for people.",
        ),
        Refusal.DISTINCT_BY_PROVIDER: RefusalRule(
            "By provider one resident counts at several sites, so distinct people do not add up.",
            "Ask with --basis residence, or count rows with COUNT(*).",
        ),
        Refusal.NO_AGGREGATE: RefusalRule(
            "Nothing is aggregated, so rows would be selected.",
            "Add an aggregate: SELECT sex, COUNT(*) FROM residents GROUP BY sex",
        ),
        Refusal.NOT_GROUPED: RefusalRule(
            "A column stands outside an aggregate and is not grouped.",
            "Add it to GROUP BY, or write GROUP BY ALL.",
        ),
        Refusal.NESTED_AGGREGATE: RefusalRule(
            "An aggregate stands inside an aggregate.", "Aggregate once: AVG(value)."
        ),
        Refusal.AGGREGATE_MISPLACED: RefusalRule(
            "An aggregate stands in WHERE or GROUP BY.", "Put the condition into HAVING."
        ),
        Refusal.AGGREGATE_ARGUMENT: RefusalRule(
            "An aggregate takes a column, or arithmetic over columns; a condition inside would "
            "count fewer people than the cell shows.",
            "Put the condition into WHERE, or group by it: GROUP BY CASE WHEN … THEN … END.",
        ),
        Refusal.AGGREGATE_FILTER: RefusalRule(
            "FILTER would count fewer people than the cell shows.",
            "Put the condition into WHERE, or group by it.",
        ),
        Refusal.MIN_MAX: RefusalRule(
            "A minimum, maximum, median or quantile is one person's value.",
            "Count in bands: GROUP BY CASE WHEN value < 120 THEN … END, or use AVG and STDDEV.",
        ),
        Refusal.MEASURE_GROUPED: RefusalRule(
            "A measure's own value would be the key of a group.",
            "Group by bands: GROUP BY CASE WHEN value < 120 THEN 'low' ELSE 'high' END.",
        ),
        Refusal.GROUPING_SETS: RefusalRule(
            "ROLLUP, CUBE and GROUPING SETS are not planned.", "Ask each grouping on its own."
        ),
        Refusal.WINDOW_FUNCTION: RefusalRule(
            "A window function works on rows.", "Use an aggregate with GROUP BY."
        ),
        Refusal.FUNCTION_NOT_ALLOWED: RefusalRule(
            "The function or operator is not on the list.",
            "Allowed: arithmetic, comparisons, CASE, COALESCE, NULLIF, ABS, ROUND, FLOOR, CEIL, "
            "LEAST, GREATEST, LOWER, UPPER, TRIM, LENGTH, SUBSTRING, LEFT, RIGHT, ||, CAST, YEAR, "
            "QUARTER, MONTH, WEEK, DAY, EXTRACT, DATE_TRUNC, DATE_DIFF; "
            "COUNT, SUM, AVG, VAR_*, STDDEV_*.",
        ),
        Refusal.CLAUSE_NOT_ALLOWED: RefusalRule(
            "A clause of the statement is not planned.",
            "SELECT … FROM … WHERE … GROUP BY … HAVING … ORDER BY … LIMIT … OFFSET …",
        ),
        Refusal.PARAMETER: RefusalRule(
            "A placeholder has no value here.", "Write the value as a literal."
        ),
        Refusal.TYPE_MISMATCH: RefusalRule(
            "The types do not fit.", "Codes are text: code = '8480-6'; dates are '2026-01-31'."
        ),
        Refusal.LITERAL: RefusalRule(
            "A literal cannot be used here.",
            "Use finite numbers below 1e15, text of up to 200 printable characters, "
            "dates as '2026-01-31'.",
        ),
        Refusal.NUMBER_TOO_LARGE: RefusalRule(
            "Whole-number arithmetic could leave 64 bits.", "Use smaller factors, or 1.0 * x."
        ),
        Refusal.ZERO_DIVISOR: RefusalRule(
            "The divisor must be a number other than zero, written out.",
            "Divide by a literal, or divide the aggregates: SUM(value) / COUNT(*).",
        ),
        Refusal.AFTER_AGGREGATION: RefusalRule(
            "The function is not computed over aggregates and groups.",
            "Put the whole expression into GROUP BY; over aggregates use arithmetic, CASE, "
            "COALESCE, NULLIF, ABS, ROUND, FLOOR, CEIL, LEAST, GREATEST and comparisons.",
        ),
        Refusal.DUPLICATE_NAME: RefusalRule(
            "A name means two things.", "Give each selected expression a name of its own."
        ),
    }
)

_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,39}")


def refuse(refusal: Refusal, message: str = "", *, hint: str = "") -> NoReturn:
    """Refuse the question, with the catalogue's words where none are given."""
    rule = REFUSALS[refusal]
    raise QueryRefusedError(refusal, message or rule.meaning, hint=hint or rule.nearest)


def shown_name(name: str) -> str:
    """The name if it is a plain one; what was quoted may be a person's name and is not repeated."""
    return name.lower() if _PLAIN_NAME.fullmatch(name) else "(a quoted name)"
