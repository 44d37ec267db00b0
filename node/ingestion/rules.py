"""Every rule of cleaning, in one table: what it asks, what breaking it does, and why it is there.

Step: `read` (the unit could not be read as one), `map` (its cells could not be translated),
`normalise` (how a value is written was changed, and it is said), `validate` (what it says cannot
be), `identify` (whom it is about), `store` (the store refused it). What checks a rule stands in the
module of its step; `docs/ingestion.md` shows this table, and a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from node.ingestion.model import Severity

__all__ = ["RULES", "Rule", "is_error"]


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. `asks` is what was expected; it never repeats a value."""

    code: str
    step: str
    severity: Severity
    asks: str
    reason: str


def _error(code: str, step: str, asks: str, reason: str) -> Rule:
    return Rule(code, step, Severity.ERROR, asks, reason)


def _warning(code: str, step: str, asks: str, reason: str) -> Rule:
    return Rule(code, step, Severity.WARNING, asks, reason)


_TABLE: Final = (
    # ------------------------------------------------------------------ read
    _error(
        "LINE_TOO_LONG",
        "read",
        "a line, resource or message within the format's bound",
        "What is larger than any honest one is a broken export or an attack on memory.",
    ),
    _error(
        "LINE_BROKEN",
        "read",
        "a line that its format allows",
        "An open quotation mark or half a JSON object is a cut file; guessing would invent data.",
    ),
    _error(
        "ENCODING_WRONG",
        "read",
        "text in the encoding of the file",
        "A name with replaced characters is somebody else's name.",
    ),
    _error(
        "COLUMNS_WRONG",
        "read",
        "as many cells as the header has columns",
        "A cell too many or too few shifts every value behind it into the wrong column.",
    ),
    _error(
        "RESOURCE_INVALID",
        "read",
        "a resource that the JSON schema of FHIR R4 allows",
        "What breaks the schema was not made by FHIR software, so its fields mean nothing certain.",
    ),
    _error(
        "RESOURCE_NOT_TAKEN",
        "map",
        "a resource or status that Fenhe has a table for",
        "Storing half of what it says would pass for the whole.",
    ),
    _error(
        "MESSAGE_INVALID",
        "read",
        "an HL7 v2 message that begins with MSH and names its type",
        "Without MSH neither separators nor sender are known.",
    ),
    _error(
        "MESSAGE_NOT_TAKEN",
        "map",
        "ADT A01, A03, A04, A08, A40 or ORU R01",
        "Other events change what is not modelled here.",
    ),
    _error(
        "UNIT_UNREADABLE",
        "map",
        "a unit of a shape that this program foresaw",
        "One such unit must not stop the others; it waits for a program that knows it.",
    ),
    # ------------------------------------------------------------------ map
    _error(
        "CODE_UNMAPPED",
        "map",
        "a cell that the column's code map translates",
        "A code that nobody translated would be guessed at.",
    ),
    _error(
        "NUMBER_INVALID",
        "map",
        "a finite number without words",
        "NaN, 1e999 and '<0.5' are no values that can be averaged.",
    ),
    _error(
        "DATE_INVALID",
        "map",
        "a day in one of the mapping's formats, not before 1850",
        "03/04/2025 is two days; only the mapping can say which.",
    ),
    _error(
        "LENGTH_WRONG",
        "map",
        "an identifier as long as the mapping says",
        "Table programs take leading zeros away, and 00123 and 123 are two patients.",
    ),
    _error(
        "NUMBER_ROUNDED",
        "map",
        "an identifier of digits, not 1.42601E+17",
        "A table program has rounded it: its last digits are lost.",
    ),
    _error(
        "NOTHING_TO_STORE",
        "map",
        "a record, or somebody to register",
        "A unit that is taken and leaves nothing would be lost in silence.",
    ),
    _error(
        "VALUE_REQUIRED",
        "validate",
        "a value of this element",
        "The record means nothing without it.",
    ),
    # ------------------------------------------------------------------ normalise
    _warning(
        "UNIT_CONVERTED",
        "normalise",
        "the unit of the code's own list",
        "A conversion is said, so that the laboratory's own figure can be found again.",
    ),
    _warning(
        "EXCEL_DAY",
        "normalise",
        "a day, not a serial number",
        "Excel's day 45000 is 2023-03-15; that the cell lost its format is worth knowing.",
    ),
    # ------------------------------------------------------------------ validate
    _error(
        "NAME_INVALID",
        "validate",
        "1 to 100 characters, none of them control characters",
        "Hidden characters make two people of one.",
    ),
    _error(
        "TEXT_INVALID",
        "validate",
        "text of its length, without control characters",
        "What moves a cursor or turns a line round must not reach a screen.",
    ),
    _error("CHOICE_UNKNOWN", "validate", "one of the element's words", "It is counted by them."),
    _error(
        "CODE_INVALID",
        "validate",
        "1 to 32 of A-Z a-z 0-9 . _ / -",
        "Codes leave the county as keys of groups: words may name somebody.",
    ),
    _error(
        "IDENTIFIER_INVALID",
        "validate",
        "1 to 64 printable characters",
        "It is compared character by character.",
    ),
    _error(
        "IDENTITY_NUMBER_INVALID",
        "validate",
        "18 characters of GB 11643 with their check character",
        "A slip in it makes a second person.",
    ),
    _error(
        "IDENTITY_BIRTH_DATE_DIFFERS",
        "validate",
        "the birth date that the identity number names",
        "One of the two belongs to somebody else.",
    ),
    _error(
        "IDENTITY_SEX_DIFFERS",
        "validate",
        "the sex that the identity number names",
        "One of the two belongs to somebody else.",
    ),
    _error(
        "DATE_IN_FUTURE",
        "validate",
        "a day of today or earlier",
        "What has not happened was not observed.",
    ),
    _error("DATES_REVERSED", "validate", "an end not before its start", "One of them is wrong."),
    _error(
        "DATE_BEFORE_BIRTH",
        "validate",
        "a day of the person's life",
        "The record is another's, or one date is wrong.",
    ),
    _error(
        "DATE_AFTER_DEATH",
        "validate",
        "a day not after death",
        "The record is another's, or he lives.",
    ),
    _error(
        "ICD10_UNKNOWN",
        "validate",
        "ICD-10, WHO or its national extension",
        "A diagnosis that no list has counts nowhere.",
    ),
    _error(
        "OBSERVATION_CODE_UNKNOWN",
        "validate",
        "a LOINC code of the shipped list, or one that the mapping translates to it",
        "Unit and range of a code that nobody knows cannot be judged.",
    ),
    _error(
        "UNIT_WRONG",
        "validate",
        "the code's unit, or one that is converted to it",
        "The same figure in another unit is another finding.",
    ),
    _error(
        "VALUE_IMPLAUSIBLE",
        "validate",
        "a value that somebody alive can have",
        "It is a slip of the pen, and one such value moves a mean.",
    ),
    _error(
        "ID_INVALID",
        "validate",
        "a UUID in lower case",
        "Resident ids are not made up by sources.",
    ),
    _warning(
        "VALUE_UNUSUAL",
        "validate",
        "a value that is common for age and sex",
        "It may be true, and then it matters; it may be a child's in the mother's record.",
    ),
    _warning(
        "PHONE_ODD",
        "validate",
        "7 to 15 digits",
        "Nobody is identified by it, so it is kept as it is.",
    ),
    _warning(
        "AGE_UNUSUAL",
        "validate",
        "an age below 116 years",
        "1900-01-01 is what systems write for an unknown day.",
    ),
    _warning(
        "SEX_UNUSUAL",
        "validate",
        "a diagnosis of the person's sex",
        "Chapter XV and its like in a man's record are usually another's.",
    ),
    _warning(
        "PERSON_DIFFERS",
        "identify",
        "sex and birth year as they are held of the person",
        "What is held stays; a file is no reason to change who somebody is.",
    ),
    _warning(
        "PERSON_MATCHED",
        "identify",
        "a number that somebody here carries",
        "He was taken for a resident who is certainly he by name, birth date and more; look at it.",
    ),
    _warning(
        "IDENTIFIER_NOT_KEPT",
        "identify",
        "a person registered at this node, to whom a further number can be given",
        "Only the node that registered somebody changes who he is; the record itself is stored.",
    ),
    _warning(
        "PERIOD_LONG",
        "validate",
        "a stay of less than two years",
        "A discharge that was never entered.",
    ),
    # ------------------------------------------------------------------ identify, store
    _error(
        "PERSON_UNKNOWN",
        "identify",
        "somebody known here, or enough to register him",
        "Records without a person cannot be found by those who care for him.",
    ),
    _error(
        "PERSON_AMBIGUOUS",
        "identify",
        "identifiers of one person",
        "Two people's data in one record harm both.",
    ),
    _error(
        "PERSONS_TO_MERGE",
        "identify",
        "a merge that a steward decided",
        "A merge can be taken back: `fenhe resident merge`, then try it again.",
    ),
    _error(
        "KEY_CONFLICT",
        "store",
        "one set of values for a key within a run",
        "Which of the two holds would depend on their order.",
    ),
    _error(
        "STORE_REFUSED",
        "store",
        "rows that this node may write",
        "Another author's record, or a resident whose home is elsewhere.",
    ),
)

RULES: Final[Mapping[str, Rule]] = MappingProxyType({each.code: each for each in _TABLE})
"""By code."""


def is_error(code: str) -> bool:
    """Whether breaking the rule quarantines. Raises KeyError: no such rule, a defect here."""
    return RULES[code].severity is Severity.ERROR
