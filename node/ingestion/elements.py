"""The canonical elements that a mapping may name, with their DE codes of WS/T 363.

An element is `subject.part`: `person.birth_date`, `condition.code`. A measured value may also be
named by what is measured, `observation.8480-6` or DE04.10.174.00: then the column's cells are
values of that LOINC code, and one row may hold several.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from types import MappingProxyType
from typing import Final

from node.records.observation_codes import observation_codes

__all__ = ["ELEMENTS", "SUBJECTS", "Element", "Kind", "element_of"]


class Kind(StrEnum):
    """What a cell holds, which decides how it is normalised."""

    NAME = "name"
    TEXT = "text"
    CODE = "code"
    DATE = "date"
    NUMBER = "number"
    UNIT = "unit"
    SEX = "sex"
    PHONE = "phone"
    IDENTIFIER = "identifier"
    ICD10 = "icd10"
    KEY = "key"


@dataclass(frozen=True, slots=True)
class Element:
    """One element. `measures`: the LOINC code of a wide column, else empty."""

    name: str
    kind: Kind
    words: tuple[str, ...] = ()
    """What headers call it, by which a proposed mapping recognises it."""
    data_elements: tuple[str, ...] = ()
    measures: str = ""

    @property
    def subject(self) -> str:
        """What it is about, such as person or encounter."""
        return self.name.partition(".")[0]

    @property
    def part(self) -> str:
        """Its name within the subject."""
        return self.name.partition(".")[2]


SUBJECTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "encounter": "encounters",
        "condition": "conditions",
        "observation": "observations",
        "medication": "medications",
        "procedure": "procedures",
        "immunization": "immunizations",
    }
)
"""Subjects beside the person, with their tables."""

_LISTED: Final = (
    Element("person.resident_id", Kind.CODE, ("resident_id", "居民标识")),
    Element("person.name", Kind.NAME, ("name", "姓名", "患者姓名"), ("DE02.01.039.00",)),
    Element("person.sex", Kind.SEX, ("sex", "gender", "性别"), ("DE02.01.040.00",)),
    Element(
        "person.birth_date",
        Kind.DATE,
        ("birth_date", "birthdate", "dob", "出生日期", "生日"),
        ("DE02.01.005.01",),
    ),
    Element(
        "person.identity_number",
        Kind.IDENTIFIER,
        ("identity_number", "id_number", "身份证号", "身份证号码", "身份证", "公民身份号码"),
        ("DE02.01.030.00",),
    ),
    Element(
        "person.health_card", Kind.IDENTIFIER, ("health_card", "健康卡号"), ("DE01.00.021.00",)
    ),
    Element(
        "person.health_record",
        Kind.IDENTIFIER,
        ("health_record", "健康档案号", "健康档案编号"),
        ("DE01.00.009.00",),
    ),
    Element("person.passport", Kind.IDENTIFIER, ("passport", "护照号")),
    Element(
        "person.local_id",
        Kind.IDENTIFIER,
        ("patient_id", "mrn", "病历号", "患者编号", "门诊号", "住院号"),
        ("DE01.00.010.00", "DE01.00.014.00", "DE01.00.004.00"),
    ),
    Element(
        "person.phone",
        Kind.PHONE,
        ("phone", "mobile", "电话", "联系电话", "手机号"),
        ("DE02.01.010.00",),
    ),
    Element("person.address", Kind.TEXT, ("address", "地址", "住址", "现住址")),
    Element("person.deceased_on", Kind.DATE, ("deceased_on", "死亡日期")),
    Element("encounter.number", Kind.KEY, ("visit_no", "encounter_id", "就诊号", "就诊流水号")),
    Element("encounter.class", Kind.CODE, ("visit_type", "就诊类型", "就诊类别")),
    Element(
        "encounter.started_on",
        Kind.DATE,
        ("visit_date", "admitted_on", "就诊日期", "入院日期", "就诊时间"),
        ("DE06.00.062.00", "DE06.00.092.00"),
    ),
    Element("encounter.ended_on", Kind.DATE, ("discharged_on", "出院日期"), ("DE06.00.017.00",)),
    Element("encounter.reason_code", Kind.ICD10, ("reason_code",), ("DE05.10.053.00",)),
    Element("encounter.department", Kind.TEXT, ("department", "科室"), ("DE08.10.026.00",)),
    Element("condition.number", Kind.KEY, ("diagnosis_no", "诊断编号")),
    Element(
        "condition.code",
        Kind.ICD10,
        ("diagnosis_code", "icd10", "icd_code", "诊断编码", "疾病编码"),
        ("DE05.01.024.00",),
    ),
    Element("condition.onset_on", Kind.DATE, ("onset_on", "diagnosed_on", "诊断日期", "发病日期")),
    Element("condition.clinical_status", Kind.CODE, ("clinical_status",)),
    Element("observation.number", Kind.KEY, ("result_no", "observation_id", "检验结果编号")),
    Element(
        "observation.code",
        Kind.CODE,
        ("item_code", "test_code", "loinc", "项目编码", "检验项目代码"),
        ("DE04.30.019.00",),
    ),
    Element(
        "observation.value",
        Kind.NUMBER,
        ("value", "result", "结果", "检验结果"),
        ("DE04.30.015.00",),
    ),
    Element("observation.unit", Kind.UNIT, ("unit", "单位"), ("DE04.30.016.00",)),
    Element(
        "observation.observed_on",
        Kind.DATE,
        ("observed_on", "tested_on", "检查日期", "检验日期", "测量日期"),
    ),
    Element("medication.number", Kind.KEY, ("prescription_no", "处方号")),
    Element("medication.code", Kind.CODE, ("drug_code", "药品编码")),
    Element("medication.display", Kind.TEXT, ("drug_name", "药品名称")),
    Element("medication.started_on", Kind.DATE, ("medication_started_on", "开始用药日期")),
    Element("medication.ended_on", Kind.DATE, ("medication_ended_on", "停药日期")),
    Element("medication.dosage", Kind.TEXT, ("dosage", "用法用量")),
    Element("procedure.number", Kind.KEY, ("operation_no", "手术编号")),
    Element("procedure.code", Kind.CODE, ("procedure_code", "手术编码", "手术操作编码")),
    Element("procedure.display", Kind.TEXT, ("procedure_name", "手术名称")),
    Element("procedure.performed_on", Kind.DATE, ("performed_on", "手术日期")),
    Element("immunization.number", Kind.KEY, ("vaccination_no", "接种编号")),
    Element("immunization.code", Kind.CODE, ("vaccine_code", "疫苗编码")),
    Element("immunization.display", Kind.TEXT, ("vaccine_name", "疫苗名称")),
    Element("immunization.given_on", Kind.DATE, ("given_on", "接种日期")),
    Element("immunization.dose_number", Kind.NUMBER, ("dose_number", "剂次")),
)

_DATA_ELEMENT: Final = re.compile(r"DE\d{2}\.\d{2}\.\d{3}\.\d{2}", re.ASCII)


def _measured() -> tuple[Element, ...]:
    return tuple(
        Element(
            f"observation.{each.code}",
            Kind.NUMBER,
            (each.code, each.name_zh, each.name_en),
            (each.data_element,) if each.data_element else (),
            measures=each.code,
        )
        for each in observation_codes().values()
    )


@cache
def _all() -> Mapping[str, Element]:
    return MappingProxyType({each.name: each for each in (*_LISTED, *_measured())})


@cache
def _by_data_element() -> Mapping[str, Element]:
    return MappingProxyType({code: each for each in _all().values() for code in each.data_elements})


ELEMENTS: Final[Mapping[str, Element]] = _all()
"""Every element by its name."""


def element_of(name: str) -> Element | None:
    """The element of a name or of a DE code; None if there is none."""
    if _DATA_ELEMENT.fullmatch(name):
        return _by_data_element().get(name)
    return ELEMENTS.get(name)
