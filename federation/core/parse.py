"""SQL text to one sqlglot SELECT, within bounds; the only place that runs the parser.

The parser is a third party's and was not made for hostile text: whatever it raises becomes a
refusal here, and nothing of the text is logged.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlglot import Token, TokenType, exp
from sqlglot.dialects.duckdb import DuckDB
from sqlglot.errors import ErrorLevel, SqlglotError

from federation.core.refusals import refuse
from federation.errors import Refusal

__all__ = ["DEPTH_MAX", "LITERALS_MAX", "SQL_CHARACTERS_MAX", "parse_select"]

SQL_CHARACTERS_MAX = 8_000
LITERALS_MAX = 500
DEPTH_MAX = 80

_PARSER_FAILURES = (
    SqlglotError,
    RecursionError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
)
"""What a third-party parser may raise on hostile text, beside its own errors."""

_SETS = (exp.Union, exp.Intersect, exp.Except)


def _tokens(sql: str) -> list[Token]:
    """The text's tokens, bounded."""
    if len(sql) > SQL_CHARACTERS_MAX:
        refuse(Refusal.TOO_LONG)
    try:
        sql.encode("utf-8")
        tokens = list(DuckDB().tokenize(sql))
    except _PARSER_FAILURES:
        refuse(Refusal.SYNTAX, "The text cannot be split into words of SQL.")
    literals = (TokenType.NUMBER, TokenType.STRING)
    if sum(token.token_type in literals for token in tokens) > LITERALS_MAX:
        refuse(Refusal.TOO_MANY_LITERALS)
    return tokens


def _check_statement(tokens: Sequence[Token]) -> list[Token]:
    """The tokens of one statement that starts like a SELECT, without the closing semicolon."""
    body = list(tokens)
    while body and body[-1].token_type is TokenType.SEMICOLON:
        body.pop()
    if not body:
        refuse(Refusal.SYNTAX, "The text holds no statement.")
    if any(token.token_type is TokenType.SEMICOLON for token in body):
        refuse(Refusal.MULTIPLE_STATEMENTS)
    first = body[0].token_type
    if first is TokenType.WITH:
        refuse(Refusal.CTE)
    if first not in (TokenType.SELECT, TokenType.L_PAREN):
        refuse(Refusal.NOT_SELECT)
    return body


def _check_depth(tree: exp.Expression) -> None:
    """Refuse a tree deeper than DEPTH_MAX, without recursion."""
    level: list[exp.Expression] = [tree]
    for _ in range(DEPTH_MAX):
        level = [child for node in level for child in node.iter_expressions()]
        if not level:
            return
    refuse(Refusal.TOO_DEEP)


def parse_select(sql: str) -> exp.Select:
    """The one SELECT of the text.

    Raises:
        QueryRefusedError: It is too long, too deep, not one statement, or no SELECT.
    """
    tokens = _check_statement(_tokens(sql))
    parser = DuckDB().parser(error_level=ErrorLevel.IMMEDIATE)
    try:
        statements = [tree for tree in parser.parse(tokens, sql) if tree is not None]
    except RecursionError:
        refuse(Refusal.TOO_DEEP)
    except _PARSER_FAILURES:
        refuse(Refusal.SYNTAX)
    if len(statements) != 1:
        refuse(Refusal.MULTIPLE_STATEMENTS if statements else Refusal.SYNTAX)
    (tree,) = statements
    while isinstance(tree, exp.Subquery | exp.Paren) and not _decorated(tree):
        tree = tree.this
    if isinstance(tree, _SETS):
        refuse(Refusal.SET_OPERATION)
    if not isinstance(tree, exp.Select):
        refuse(Refusal.NOT_SELECT)
    _check_depth(tree)
    return tree


def _decorated(tree: exp.Expression) -> bool:
    """Whether a parenthesized statement carries more than the statement inside."""
    return any(value for name, value in tree.args.items() if name != "this")
