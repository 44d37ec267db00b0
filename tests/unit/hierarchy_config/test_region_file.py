"""A region file loads, or says everything that is wrong with it at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from hardware_profiles import PROFILE_NAMES
from hierarchy_config import (
    CareLevel,
    CopyForm,
    NodeId,
    RegionFileError,
    dump_region,
    load_region,
    parse_region,
    region_model,
    region_text,
    shipped_region,
    slice_hierarchy,
    with_endpoints,
)

SOUND = """
region: linfen
epoch: 3
nodes:
  - {id: 1410, endpoint: "10.0.0.1:7443"}
  - {id: "141002", profile: township}
  - {id: 141002001, endpoint: "[fd00::1]:7443"}
  - {id: 141002001001, profile: profiles/old-pc.yaml, succeeds: 141002001002}
"""


def faults(text: str) -> list[tuple[str, str]]:
    """Key and expectation of each fault."""
    with pytest.raises(RegionFileError) as caught:
        parse_region(text, file="region.yaml")
    assert caught.value.code == "REGION_FILE_INVALID"
    assert caught.value.hint
    return [(fault.key, fault.expected) for fault in caught.value.faults]


def keys(text: str) -> list[str]:
    """Key of each fault."""
    return [key for key, _ in faults(text)]


def with_nodes(*nodes: str) -> str:
    """A sound head and these nodes, one a line."""
    return "region: linfen\nepoch: 1\nnodes:\n" + "".join(f"  - {node}\n" for node in nodes)


def test_names_levels_and_parents_come_from_the_division_table() -> None:
    """A slice is a list of codes."""
    region = parse_region(SOUND)
    county = region.nodes[NodeId("141002")]
    assert (county.name_zh, county.pinyin, county.level) == (
        "尧都区",
        "Yaodu District",
        CareLevel.COUNTY,
    )
    assert county.parent == "1410"
    assert county.profile == "township"
    assert region.nodes[NodeId("1410")].profile == "city"
    assert region.nodes[NodeId("141002001001")].succeeds == "141002001002"
    assert region.epoch == 3


def test_a_missing_level_leaves_the_nearest_ancestor_as_parent() -> None:
    """A village whose township has no node hangs under the county."""
    region = parse_region(with_nodes("{id: 1410}", "{id: 141002}", "{id: 141002001001}"))
    assert region.parent(NodeId("141002001001")) == "141002"


def test_a_parent_may_be_another_than_the_code_says() -> None:
    """Ancestry is the file's."""
    region = parse_region(
        with_nodes("{id: 1410}", "{id: 141002}", "{id: 141024}", "{id: 141002001, parent: 141024}")
    )
    assert region.is_in_subtree(NodeId("141002001"), NodeId("141024"))
    assert not region.is_in_subtree(NodeId("141002001"), NodeId("141002"))


def test_a_code_that_the_table_does_not_know_needs_a_name() -> None:
    """With one, its level is its length's and its parent its prefix's, unless said otherwise."""
    new = "{id: 141002999, name: 新区, pinyin: Xinqu}"
    region = parse_region(with_nodes("{id: 1410}", "{id: 141002}", new))
    entry = region.nodes[NodeId("141002999")]
    assert (entry.level, entry.parent, entry.name_zh) == (CareLevel.TOWNSHIP, "141002", "新区")
    assert keys(with_nodes("{id: 1410}", "{id: 141002999}")) == ["nodes[1].id"]


def test_all_takes_every_division_and_changes_alter_some() -> None:
    """The full region with two endpoints and one node of its own."""
    region = parse_region(
        """
        region: linfen
        epoch: 1
        nodes: all
        changes:
          - {id: 1410, endpoint: "10.0.0.1:7443"}
          - {id: 141002999, name: 新区}
        """
    )
    assert len(region) == 2503
    assert region.nodes[NodeId("1410")].endpoint == "10.0.0.1:7443"
    assert region.nodes[NodeId("1410")].name_zh == "临汾市"


def test_policies_and_thresholds_are_read() -> None:
    """What a level sends, by table; the smallest cell, by node."""
    region = parse_region(
        SOUND
        + """
policies: {county: {"*": [none], observations: [deidentified]}}
thresholds: {cell_count_min: 5, overrides: {141002: 12}}
"""
    )
    county = NodeId("141002")
    assert region.copy_forms(county, "residents") == (CopyForm.NONE,)
    assert region.copy_forms(county, "observations") == (CopyForm.DEIDENTIFIED,)
    assert (region.cell_count_min(county), region.cell_count_min(region.root)) == (12, 5)


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        (["{id: 1410}", "{id: 1410}"], ["nodes[1].id"]),
        (["{id: 1410}", "{id: 141002, parent: 141099}"], ["nodes[1].parent"]),
        (["{id: 1410}", "{id: 141002, parent: 141002}"], ["nodes[1].parent"]),
        (["{id: 1410}", "{id: 141002, parent: 141024}", "{id: 141024}"], ["nodes[1].parent"]),
        (["{id: 141002}", "{id: 141024}"], ["nodes[0].parent", "nodes[1].parent"]),
        (["{id: 1410}", "{id: 141002, colour: red}"], ["nodes[1].colour"]),
        (["{id: 1410}", "{parent: 1410}"], ["nodes[1].id"]),
        (["{id: 1410}", "{id: 14100}"], ["nodes[1].id"]),
        (["{id: 1410}", "{id: true}"], ["nodes[1].id"]),
        (["{id: 1410}", "141002"], ["nodes[1]"]),
        (["{id: 1410, profile: huge}"], ["nodes[0].profile"]),
        (["{id: 1410, level: province}"], ["nodes[0].level"]),
        (["{id: 1410, name: ''}"], ["nodes[0].name"]),
        (["{id: 1410, succeeds: 1410}"], ["nodes[0].succeeds"]),
        (
            ["{id: 1410, endpoint: 'a:1'}", "{id: 141002, endpoint: 'a:1'}"],
            ["nodes[1].endpoint"],
        ),
    ],
)
def test_finds_each_fault_of_a_node(nodes: list[str], expected: list[str]) -> None:
    """One thing is wrong, and its key is named."""
    assert keys(with_nodes(*nodes)) == expected


@pytest.mark.parametrize(
    "endpoint",
    ["", "host", "host:", ":7443", "host:0", "host:65536", "host:7443x", "a b:1", "-a:1", "a:-1"],
)
def test_refuses_an_endpoint_that_cannot_be_dialled(endpoint: str) -> None:
    """Host and port, the port of 1 to 65535."""
    assert keys(with_nodes(f"{{id: 1410, endpoint: '{endpoint}'}}")) == ["nodes[0].endpoint"]


def test_a_cycle_is_shown_as_one() -> None:
    """Each cycle is reported once, with its way."""
    with pytest.raises(RegionFileError) as caught:
        parse_region(
            with_nodes(
                "{id: 1410}",
                "{id: 141002, parent: 141002001}",
                "{id: 141002001, parent: 141002}",
                "{id: 141002001001}",
            )
        )
    shown = [fault.value for fault in caught.value.faults if "cycle" in fault.expected]
    assert shown == ["'141002 > 141002001 > 141002'"]


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        ("policies: {county: {'*': [whole]}}", ["policies.county.*"]),
        ("policies: {county: {'*': []}}", ["policies.county.*"]),
        ("policies: {county: {'*': [full, index]}}", ["policies.county.*"]),
        ("policies: {county: {'*': [none, none]}}", ["policies.county.*"]),
        ("policies: {county: {'*': [none], staff: [deidentified]}}", ["policies.county"]),
        ("policies: {province: {'*': [full]}}", ["policies.province"]),
        ("policies: {city: {'*': [full]}}", ["policies.city"]),
        ("policies: {county: {'*': [none], resident: [full]}}", ["policies.county.resident"]),
        ("policies: {county: {residents: [none]}}", ["policies"]),
        ("thresholds: {cell_count_min: 0}", ["thresholds.cell_count_min"]),
        ("thresholds: {cell_count_min: '10'}", ["thresholds.cell_count_min"]),
        ("thresholds: {colour: 1}", ["thresholds.colour"]),
        ("thresholds: {overrides: {141002: 3}}", ["thresholds.overrides.141002"]),
        ("thresholds: {overrides: {141099: 20}}", ["thresholds.overrides.141099"]),
        ("divisions: shanxi", ["divisions"]),
        ("changes: [{id: 141002}]", ["changes"]),
        ("colour: red", ["colour"]),
    ],
)
def test_finds_each_fault_beside_the_nodes(rest: str, expected: list[str]) -> None:
    """Policies, thresholds and unknown keys."""
    assert keys(SOUND + rest) == expected


def test_an_unknown_key_is_answered_with_the_known_ones() -> None:
    """So that a slip of the pen is seen."""
    found = dict(faults(SOUND.replace("epoch:", "epch:")))
    assert "required" in found["epoch"]
    assert "epoch" in found["epch"]
    assert "cell_count_min" in dict(faults(SOUND + "thresholds: {x: 1}"))["thresholds.x"]


def test_all_faults_are_reported_together_with_file_key_value_and_expectation() -> None:
    """An operator corrects the file once."""
    text = """
region: Lin fen
epoch: 0
nodes:
  - {id: 1410}
  - {id: 141002, parent: 141099, endpoint: nowhere, colour: red}
  - {id: 141002}
policies: {county: {"*": [whole]}}
"""
    with pytest.raises(RegionFileError) as caught:
        parse_region(text, file="region.yaml")
    lines = str(caught.value).splitlines()
    assert len(lines) == 7
    assert "region.yaml: region: 'Lin fen': expected a DNS label" in lines[0]
    assert all(line.startswith("region.yaml: ") and ": expected " in line for line in lines)
    assert [fault.key for fault in caught.value.faults] == [
        "region",
        "epoch",
        "policies.county.*",
        "nodes[1].endpoint",
        "nodes[1].colour",
        "nodes[2].id",
        "nodes[1].parent",
    ]


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("region: [", "line 1, column 10"),
        ("region: a\nregion: b", "line 2, column 1"),
        ("a: &x 1\n? [1]\n: 2", "line 2, column 3"),
        ("- 1", "(file)"),
        ("", "(file)"),
        ("region: \x07", "(file)"),
        ("region: !!python/object:os.system x", "line 1, column 9"),
    ],
)
def test_text_that_is_no_mapping_is_a_fault_with_its_place(text: str, key: str) -> None:
    """Broken YAML, a key that stands twice, a list, nothing, a control character, a foreign tag."""
    assert keys(text)[0] == key


def test_a_file_that_cannot_be_read_is_a_fault_too(tmp_path: Path) -> None:
    """Missing, a folder, or not UTF-8."""
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"region: \xff")
    for path in (tmp_path / "none.yaml", tmp_path, binary):
        with pytest.raises(RegionFileError, match=r"UTF-8|readable"):
            load_region(path)


def test_what_is_dumped_loads_to_the_same_region(tmp_path: Path) -> None:
    """The whole of Linfen, a slice with places, and a region with everything in it."""
    linfen = load_region(shipped_region())
    part = slice_hierarchy(linfen, [NodeId("1410"), NodeId("141002"), NodeId("141002001001")])
    placed = with_endpoints(part, {NodeId("1410"): "127.0.0.1:7443"})
    rich = parse_region(
        SOUND
        + """
  - {id: 141099, parent: 1410, name: 新县, level: county}
  - {id: 141024001, parent: 141099, name: 改名}
thresholds: {cell_count_min: 5, overrides: {141002: 12}}
"""
    )
    for region in (linfen, placed, rich):
        dump_region(region, tmp_path / "region.yaml")
        assert load_region(tmp_path / "region.yaml") == region
    assert list(tmp_path.iterdir()) == [tmp_path / "region.yaml"]
    assert len(region_text(placed).splitlines()) < 25


def test_the_profiles_a_region_may_name_are_those_that_are_shipped() -> None:
    """The two rooms do not import each other's lists, so this compares them."""
    assert set(PROFILE_NAMES) == region_model.PROFILE_NAMES
