"""What matching compares, which model it takes, and the words of its setting."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from hardware_profiles import PROFILE_NAMES, Machine, fit, load_profile
from node.empi.defaults import SHIPPED, shipped_model
from node.empi.errors import MatchModelError
from node.empi.synthetic import FIELDS
from node.errors import SettingsError
from node.matching.book import evidence_text
from node.matching.finder import digest_of, model_of
from node.matching.model import PERSON_FIELDS, Evidence, MatchOutcome, Reason, key_of
from node.matching.people import values_of
from node.settings import SETTINGS_FILE, load_settings, save_settings


def test_a_pair_has_one_key() -> None:
    """Whichever of the two is named first."""
    assert key_of("b", "a") == key_of("a", "b") == ("a", "b")


def test_the_shipped_model_compares_what_residents_have() -> None:
    """Its fields are those of the made-up people."""
    assert set(FIELDS) == set(PERSON_FIELDS)


def test_values_stand_in_the_order_of_the_model() -> None:
    """What is not known, and what is not given, is missing."""
    given = {"sex": "female", "name": "张三", "phone": "", "address": None}
    assert values_of(("address", "name", "phone", "sex"), given) == (None, "张三", None, "female")


@pytest.mark.parametrize("sex", ["unstated", "unknown", "", None])
def test_a_sex_that_nobody_stated_is_no_evidence(sex: str | None) -> None:
    """Two of them agree in nothing."""
    assert values_of(("sex",), {"sex": sex}) == (None,)


def test_the_shipped_model_unless_there_is_one(tmp_path: Path) -> None:
    """A digest tells one from another, and a model from itself read again does not."""
    own = tmp_path / "match_model.json"
    assert model_of(own) is shipped_model()
    own.write_text(SHIPPED.read_text(encoding="utf-8"), encoding="utf-8")
    assert digest_of(model_of(own)) == digest_of(shipped_model())
    own.write_text(replace(shipped_model(), prevalence=0.5).to_json(), encoding="utf-8")
    assert digest_of(model_of(own)) != digest_of(shipped_model())


def test_a_model_that_cannot_be_read_is_no_other(tmp_path: Path) -> None:
    """It is not the shipped one's turn then."""
    for text in ("", "{}", shipped_model().to_json().replace('"name": "sex"', '"name": "gait"')):
        own = tmp_path / "match_model.json"
        own.write_text(text, encoding="utf-8")
        with pytest.raises(MatchModelError):
            model_of(own)
    own.unlink()
    own.mkdir()
    with pytest.raises(MatchModelError):
        model_of(own)


def test_what_is_kept_of_a_reason() -> None:
    """The name of a level, and bits."""
    why = (Reason("name", "exact", 12.345678), Reason("related", "alone", 0.0))
    text = evidence_text(Evidence(12.3, 0.9, MatchOutcome.LINK, why))
    assert text == '{"name": ["exact", 12.3457], "related": ["alone", 0.0]}'


@pytest.mark.parametrize("word", ["auto", "on", "off", "'on'", "'off'"])
def test_the_setting_is_a_word(tmp_path: Path, word: str) -> None:
    """A bare on is a truth value to YAML, and means on all the same."""
    path = tmp_path / SETTINGS_FILE
    path.write_text(f"node_id: '1410'\nlisten: a:1\nmatching: {word}\n", encoding="utf-8")
    settings = load_settings(tmp_path)
    assert settings.matching == yaml.safe_load(f'"{word}"').strip("'")
    save_settings(tmp_path, settings)
    assert load_settings(tmp_path) == settings


@pytest.mark.parametrize("word", ["maybe", "1", "[]"])
def test_no_other_word_is_taken(tmp_path: Path, word: str) -> None:
    """The fault names the key."""
    path = tmp_path / SETTINGS_FILE
    path.write_text(f"node_id: '1410'\nlisten: a:1\nmatching: {word}\n", encoding="utf-8")
    with pytest.raises(SettingsError, match="matching"):
        load_settings(tmp_path)


@pytest.mark.parametrize("name", PROFILE_NAMES)
def test_the_index_has_a_twentieth_of_the_memory(name: str) -> None:
    """At 0.95 MiB for a thousand residents, and less on a smaller machine."""
    profile = load_profile(name)
    for each in (profile, fit(profile, Machine(64, 1024, 1 << 20))):
        assert 0 < each.matching_residents_max * 0.95 / 1000 <= each.memory_mb / 20
    assert fit(profile, Machine(64, 1 << 20, 1 << 20)) == profile
