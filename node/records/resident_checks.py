"""Checks of the residents of a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Final

from hierarchy_config.hierarchy import Hierarchy
from hierarchy_config.model import NodeId
from node.records.faults import FaultReport
from node.records.identity import IdentityNumber, IdentityNumberError, parse_identity_number
from node.records.model import NewIdentifier, NewResident
from node.records.values import check_choice, check_date, check_id, check_text, is_plain_text

__all__ = ["IDENTIFIER_SYSTEMS", "SEXES", "ResidentChecks"]

SEXES: Final = ("male", "female", "unstated", "unknown")
IDENTIFIER_SYSTEMS: Final = ("identity_number", "health_card", "health_record", "passport", "local")

_NAME_LENGTH_MAX: Final = 100
_IDENTIFIER_LENGTH_MAX: Final = 64
_IDENTIFIERS_MAX: Final = 20


class ResidentChecks:
    """Checks residents one after the other and remembers what the records' checks need.

    `births` holds the birth date of each resident of the bundle that has an id and a sound date.
    """

    def __init__(
        self, hierarchy: Hierarchy, node_id: NodeId, today: date, report: FaultReport
    ) -> None:
        self._hierarchy = hierarchy
        self._node_id = node_id
        self._today = today
        self._report = report
        self._ids: set[str] = set()
        self._identifiers: set[NewIdentifier] = set()
        self.births: dict[str, date] = {}

    def check_all(self, residents: Sequence[NewResident]) -> None:
        """Check every resident."""
        for position, resident in enumerate(residents):
            self._check(f"residents[{position}]", resident)

    def _check(self, field: str, resident: NewResident) -> None:
        report = self._report
        if resident.resident_id is not None:
            check_id(f"{field}.resident_id", resident.resident_id, report)
            if resident.resident_id in self._ids:
                report.add(f"{field}.resident_id", "ID_REPEATED", "an id that stands once")
            self._ids.add(resident.resident_id)
        if not is_plain_text(resident.name, _NAME_LENGTH_MAX):
            expected = f"1 to {_NAME_LENGTH_MAX} characters, no control characters"
            report.add(f"{field}.name", "NAME_INVALID", expected)
        check_choice(f"{field}.sex", resident.sex, report, words=SEXES)
        birth = self._check_dates(field, resident)
        if birth is not None and resident.resident_id is not None:
            self.births[resident.resident_id] = birth
        if resident.phone is not None:
            check_text(f"{field}.phone", resident.phone, report, length_max=32)
        if resident.address is not None:
            check_text(f"{field}.address", resident.address, report, length_max=200)
        self._check_identifiers(field, resident, birth)
        self._check_home(f"{field}.home_node", resident.home_node)

    def _check_dates(self, field: str, resident: NewResident) -> date | None:
        report, today = self._report, self._today
        birth = check_date(f"{field}.birth_date", resident.birth_date, today, report)
        if resident.deceased_on is not None:
            death = check_date(f"{field}.deceased_on", resident.deceased_on, today, report)
            if birth and death and death < birth:
                report.add(f"{field}.deceased_on", "DATE_BEFORE_BIRTH", "the birth date or later")
        return birth

    def _check_identifiers(self, field: str, resident: NewResident, birth: date | None) -> None:
        numbers = 0
        if len(resident.identifiers) > _IDENTIFIERS_MAX:
            expected = f"at most {_IDENTIFIERS_MAX} identifiers a resident"
            self._report.add(f"{field}.identifiers", "BUNDLE_TOO_LARGE", expected)
            return
        for position, identifier in enumerate(resident.identifiers):
            place = f"{field}.identifiers[{position}]"
            if identifier.system not in IDENTIFIER_SYSTEMS:
                expected = "one of " + ", ".join(IDENTIFIER_SYSTEMS)
                self._report.add(f"{place}.system", "IDENTIFIER_SYSTEM_UNKNOWN", expected)
            if identifier.system == "identity_number":
                numbers += 1
                self._check_identity_number(f"{place}.value", identifier.value, resident, birth)
            elif not is_plain_text(identifier.value, _IDENTIFIER_LENGTH_MAX):
                expected = f"1 to {_IDENTIFIER_LENGTH_MAX} printable characters"
                self._report.add(f"{place}.value", "IDENTIFIER_INVALID", expected)
            if identifier in self._identifiers:
                expected = "an identifier that stands once"
                self._report.add(f"{place}.value", "IDENTIFIER_REPEATED", expected)
            self._identifiers.add(identifier)
            if numbers > 1 and identifier.system == "identity_number":
                expected = "one identity number a resident"
                self._report.add(f"{place}.value", "IDENTITY_NUMBERS_SEVERAL", expected)

    def _check_identity_number(
        self, field: str, value: str, resident: NewResident, birth: date | None
    ) -> None:
        try:
            number: IdentityNumber = parse_identity_number(value)
        except IdentityNumberError as error:
            self._report.add(field, "IDENTITY_NUMBER_INVALID", str(error))
            return
        if birth is not None and number.birth_date != birth:
            expected = "the resident's birth date in digits 7 to 14"
            self._report.add(field, "IDENTITY_BIRTH_DATE_DIFFERS", expected)
        if resident.sex in ("male", "female") and number.sex != resident.sex:
            expected = "an odd digit 17 for male, an even one for female"
            self._report.add(field, "IDENTITY_SEX_DIFFERS", expected)

    def _check_home(self, field: str, home: str | None) -> None:
        if home is None or home == self._node_id:
            return
        if NodeId(home) in self._hierarchy.nodes:
            expected = f"node {self._node_id}: register at the node of the home place"
            self._report.add(field, "NOT_HOME_NODE", expected)
        else:
            self._report.add(field, "HOME_UNKNOWN", "a node of the hierarchy")
