"""Normal form: widths folded, ends trimmed, empty made absent, nothing else touched."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from node.records import Bundle, NewIdentifier, NewRecord, normalise_bundle
from tests.unit.records.bundles import RESIDENT_ID, bundle, record, resident


def test_folds_widths_and_trims() -> None:
    """What a Chinese keyboard types becomes what a code list holds."""
    typed = resident(
        name="\u3000王 秀英 ",
        birth_date="１９５０-03-09",
        phone=" ０３５７ ",
        address="东区（１号）",
        identifiers=(NewIdentifier(" identity_number", "14260119500309024ｘ"),),
    )
    normal = normalise_bundle(bundle(resident=typed)).residents[0]
    assert (normal.name, normal.birth_date, normal.phone) == ("王 秀英", "1950-03-09", "0357")
    assert normal.address == "东区(1号)"
    assert normal.identifiers == (NewIdentifier("identity_number", "14260119500309024X"),)


def test_a_dose_keeps_its_fraction() -> None:
    """NFKC would turn 1½ into 11⁄2, eleven halves: text for people only has its widths folded."""
    normal = normalise_bundle(bundle(record("medications", dosage="１½ 片")))
    assert normal.records[0].values["dosage"] == "1½ 片"


def test_empty_optional_values_become_absent() -> None:
    """An empty text and none are one thing."""
    typed = resident(phone=" ", address="", deceased_on="", home_node="", resident_id="")
    normal = normalise_bundle(bundle(record("conditions", onset_on=" "), resident=typed))
    absent = normal.residents[0]
    assert (absent.phone, absent.address, absent.deceased_on) == (None, None, None)
    assert (absent.home_node, absent.resident_id) == (None, None)
    assert normal.records[0].values["onset_on"] is None


def test_diagnoses_get_capitals_and_their_dot_in_both_places() -> None:
    """The reason of an encounter and the code of a condition are written alike."""
    records = (record("encounters", reason_code="i10"), record("conditions", code="e11900"))
    normal = normalise_bundle(bundle(*records)).records
    assert normal[0].values["reason_code"] == "I10"
    assert normal[1].values["code"] == "E11.900"


@given(st.text(max_size=20), st.text(max_size=20), st.sampled_from(["conditions", "medications"]))
def test_normal_form_is_stable(name: str, code: str, table: str) -> None:
    """Normalising twice is normalising once, whatever was typed."""
    records = (NewRecord(None, table, RESIDENT_ID, {"code": code, "dosage": name}),)
    typed = Bundle("request-0001", (resident(name=name, address=code),), records)
    once = normalise_bundle(typed)
    assert normalise_bundle(once) == once
