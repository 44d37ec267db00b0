"""A small region in one DuckDB: its rows pooled, and cut into sites that answer by the plan."""

from __future__ import annotations

import datetime as dt
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import duckdb
from hypothesis import strategies as st

from federation.core.coverage import Coverage, SiteCoverage, SiteState
from federation.core.model import Cell, PartialAnswer
from federation.core.node_sql import node_sql, residents_sql
from federation.core.partials import check_answer, needs_exact, table_of, with_exact
from federation.core.plan import LogicalPlan

HOMES = [
    ("141002001201", "141002001", "141002"),
    ("141002001202", "141002001", "141002"),
    ("141002002201", "141002002", "141002"),
    ("141024001201", "141024001", "141024"),
    ("141024002201", "141024002", "141024"),
]
SITES = [home for home, _, _ in HOMES]

GROUPS = [
    "county",
    "township",
    "home",
    "sex",
    "birth_year",
    "unit",
    "floor(birth_year / 10) * 10",
    "birth_year - birth_year % 7",
    "birth_year // 10",
    "YEAR(observed_on)",
    "EXTRACT(quarter FROM observed_on)",
    "date_trunc('month', observed_on)",
    "upper(sex)",
    "coalesce(sex, 'none')",
    "CASE WHEN value < 100 THEN 'low' WHEN value >= 140 THEN 'high' ELSE 'mid' END",
    "value IS NULL",
    "value > 120 AND sex = 'male'",
    "substring(code, 1, 2)",
    "date_diff('month', observed_on, DATE '2024-06-01') // 6",
    "CAST(birth_year AS VARCHAR) || '年'",
    "left(lower(trim(sex)), 1) || right(code, 2)",
    "length(unit) + WEEK(observed_on) - DAY(observed_on)",
    "MONTH(observed_on)",
    "abs(birth_year - 1960)",
    "least(birth_year, 1955)",
    "greatest(YEAR(observed_on), 2024)",
    "nullif(sex, 'male')",
    "round(birth_year / 10)",
    "ceil(birth_year / 20.0)",
    "CAST(birth_year AS DOUBLE) * 0.1",
    "if(sex ILIKE 'M%', 1, 0)",
]
ARGUMENTS = [
    "value",
    "birth_year",
    "value * 2.5 - 1",
    "birth_year * 3",
    "value / 7",
    "-value",
    "YEAR(observed_on) - birth_year",
    "date_diff('day', observed_on, DATE '2024-06-01')",
]
CONDITIONS = [
    "sex = 'male'",
    "sex <> 'male'",
    "sex IS NOT NULL",
    "value BETWEEN 90 AND 150",
    "NOT (value > 120)",
    "code IN ('8480-6', '2093-3')",
    "code LIKE '84%'",
    "observed_on >= '2023-06-01'",
    "birth_year % 2 = 0 OR county = '141002'",
    "township LIKE '141024%'",
    "value IS NULL OR value < 200",
    "TRY_CAST(value AS INTEGER) % 2 = 0",
    "sex IN ('male', NULL)",
    "NOT (sex = 'male' AND birth_year > 1940)",
]


@dataclass(frozen=True)
class Query:
    """A generated question, in parts."""

    groups: tuple[str, ...]
    aggregates: tuple[str, ...]
    arguments: tuple[str, ...]
    where: str

    @property
    def source(self) -> str:
        """FROM, WHERE and GROUP BY."""
        where = f" WHERE {self.where}" if self.where else ""
        by = f" GROUP BY {', '.join(self.groups)}" if self.groups else ""
        return f"FROM observations{where}{by}"

    @property
    def sql(self) -> str:
        """The question."""
        keys = [f"{group} AS k{index}" for index, group in enumerate(self.groups)]
        figures = [f"{text} AS f{index}" for index, text in enumerate(self.aggregates)]
        return f"SELECT {', '.join(keys + figures)} {self.source}"

    @property
    def residents(self) -> str:
        """Keys, then the distinct residents that each figure rests on, by the database alone."""
        keys = [f"{group} AS k{index}" for index, group in enumerate(self.groups)]
        counts = ["COUNT(DISTINCT resident_id)"]
        counts += [
            f"COUNT(DISTINCT CASE WHEN ({argument}) IS NOT NULL THEN resident_id END)"
            for argument in self.arguments
        ]
        return f"SELECT {', '.join(keys + counts)} {self.source}"


def queries() -> st.SearchStrategy[Query]:
    """Questions of up to three groups and four aggregates."""
    functions = st.sampled_from(
        ["COUNT", "SUM", "AVG", "VAR_SAMP", "VAR_POP", "STDDEV", "STDDEV_POP"]
    )
    over = st.tuples(functions, st.sampled_from(ARGUMENTS))
    plain = st.sampled_from(["COUNT(*)", "COUNT(DISTINCT resident_id)"])
    mixed = st.sampled_from(
        ["SUM(value) / COUNT(*)", "round(100.0 * COUNT(value) / COUNT(*), 1)", "-COUNT(*) + 1"]
    )

    def build(
        groups: list[str],
        pairs: list[tuple[str, str]],
        others: list[str],
        conditions: list[str],
    ) -> Query:
        texts = [f"{function}({argument})" for function, argument in pairs]
        arguments = [argument for _, argument in pairs]
        if any("value" in text for text in others):
            arguments.append("value")
        where = " AND ".join(f"({condition})" for condition in conditions)
        return Query(tuple(groups), tuple(texts + others), tuple(arguments), where)

    return st.builds(
        build,
        st.lists(st.sampled_from(GROUPS), max_size=3, unique=True),
        st.lists(over, max_size=3, unique=True),
        st.lists(plain | mixed, min_size=1, max_size=2, unique=True),
        st.lists(st.sampled_from(CONDITIONS), max_size=2, unique=True),
    )


class Region:
    """Rows of observations, made from a seed."""

    def __init__(self, seed: int, *, special: bool = False) -> None:
        self.connection = duckdb.connect()
        self.special = special
        generator = random.Random(seed)
        self._places()
        self.connection.execute(
            "CREATE TABLE rows (row_id VARCHAR, resident_id VARCHAR, home VARCHAR, author VARCHAR, "
            "sex VARCHAR, birth_year INTEGER, code VARCHAR, value DOUBLE, unit VARCHAR, "
            "observed_on DATE)"
        )
        rows = [row for home in SITES for row in self._site(generator, home)]
        if rows:
            marks = ", ".join("?" * 10)
            text = ", ".join(f"({marks})" for _ in rows)
            values = [cell for row in rows for cell in row]
            self.connection.execute(f"INSERT INTO rows VALUES {text}", values)

    def _places(self) -> None:
        self.connection.execute(
            "CREATE TABLE places (home VARCHAR, township VARCHAR, county VARCHAR)"
        )
        self.connection.executemany("INSERT INTO places VALUES (?, ?, ?)", HOMES)

    def _site(self, generator: random.Random, home: str) -> list[tuple[object, ...]]:
        rows: list[tuple[object, ...]] = []
        for resident in range(generator.choice([0, 1, 4, 12, 25])):
            resident_id = f"{home}-{resident}"
            sex = generator.choice(["male", "female", None])
            birth_year = generator.choice([1931, 1950, 1957, 1984, None])
            for number in range(generator.choice([0, 1, 1, 2, 5])):
                value: float | None = round(generator.uniform(60, 210), 1)
                if generator.random() < 0.2:
                    value = None
                elif self.special and generator.random() < 0.1:
                    value = generator.choice([math.inf, -math.inf, math.nan])
                day = dt.date(2023, 1, 1) + dt.timedelta(days=generator.randrange(800))
                code = generator.choice(["8480-6", "8462-4", "2093-3"])
                unit = generator.choice(["mm[Hg]", "mg/dL", None])
                row_id = f"{resident_id}-{number}"
                rows.append(
                    (row_id, resident_id, home, home, sex, birth_year, code, value, unit, day)
                )
        return rows

    def pooled(self, sql: str) -> list[tuple[Cell, ...]]:
        """What one database with every row answers."""
        self.connection.execute(
            "CREATE OR REPLACE TEMP VIEW observations AS "
            "SELECT rows.*, places.county, places.township FROM rows JOIN places USING (home)"
        )
        return [tuple(_plain(cell) for cell in row) for row in self.connection.sql(sql).fetchall()]

    def site(self, plan: LogicalPlan, homes: Sequence[str], *, k: int | None) -> PartialAnswer:
        """What a site answers for some homes: exact, or by bounds where `k` is given."""
        marks = ", ".join(f"'{home}'" for home in homes)
        self.connection.execute(
            "CREATE OR REPLACE TEMP VIEW observations AS "
            f"SELECT * FROM rows WHERE home IN ({marks})"
        )
        most = self.connection.execute(
            "SELECT coalesce(max(n), 1) FROM "
            "(SELECT count(*) AS n FROM observations GROUP BY resident_id)"
        ).fetchall()[0][0]
        bound = None if k is None else int(most)
        table = table_of(plan, self._lists(node_sql(plan, rows_per_resident_max=bound)))
        if k is not None and bound is not None and needs_exact(plan, table, k):
            exact = residents_sql(plan, rows_per_resident_max=bound, cell_count_min=k)
            table = with_exact(plan, table, self._lists(exact))
            assert not needs_exact(plan, table, k)
        sites = tuple(SiteCoverage(home, SiteState.LIVE, home, 1, 1, 1) for home in sorted(homes))
        answer = PartialAnswer(table, (), Coverage(sites))
        check_answer(plan, answer)
        return answer

    def _lists(self, sql: str) -> list[list[Cell | dt.date]]:
        relation = self.connection.sql(sql)
        rows = relation.fetchall()
        return [[row[index] for row in rows] for index in range(len(relation.columns))]


def _plain(cell: object) -> Cell:
    """A database's value as a cell."""
    if isinstance(cell, dt.datetime):
        return cell.date().isoformat()
    if isinstance(cell, dt.date):
        return cell.isoformat()
    if cell is None or isinstance(cell, str | int | float):
        return cell
    return float(cell)  # type: ignore[arg-type]


def same(left: Cell, right: Cell) -> bool:
    """Equal to 1e-9, NaN equal to itself, whole numbers equal to reals of the same value."""
    if isinstance(left, int | float) and isinstance(right, int | float):
        if math.isnan(left) or math.isnan(right):
            return math.isnan(left) and math.isnan(right)
        return math.isclose(left, right, rel_tol=1e-9, abs_tol=1e-9)
    return left == right


def by_key(rows: Sequence[tuple[Cell, ...]], key_count: int) -> dict[str, tuple[Cell, ...]]:
    """Figures by key; numbers in a key are compared by value, whatever their type."""
    found: dict[str, tuple[Cell, ...]] = {}
    for row in rows:
        cells = [
            float(cell) if isinstance(cell, int | float) and not isinstance(cell, bool) else cell
            for cell in row[:key_count]
        ]
        key = repr(cells)
        assert key not in found
        found[key] = row[key_count:]
    return found
