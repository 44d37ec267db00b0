"""What every directory of nodes promises, over the file and over Consul."""

from __future__ import annotations

import pytest

from hierarchy_config import (
    DirectoryConflictError,
    NodeId,
    NodeUnknownError,
    RegionFileError,
    RegionMissingError,
    region_text,
)
from tests.contracts.directory.conftest import Bench, region

CITY = NodeId("1410")
COUNTY = NodeId("141002")


def test_holds_no_region_before_one_is_published(bench: Bench) -> None:
    """Reading and registering both say so, with a hint."""
    with pytest.raises(RegionMissingError) as caught:
        bench.directory.read()
    assert caught.value.hint
    with pytest.raises(RegionMissingError):
        bench.directory.register(COUNTY, "10.0.0.2:7443")


def test_reads_what_was_published(bench: Bench) -> None:
    """Another reader of the same store sees the same hierarchy at the revision told."""
    revision = bench.directory.publish(region(), expected=None)
    state = bench.other.read()
    assert (state.hierarchy, state.revision) == (region(), revision)


def test_each_publication_has_a_revision_of_its_own(bench: Bench) -> None:
    """A new epoch is a new revision."""
    first = bench.directory.publish(region(1), expected=None)
    second = bench.directory.publish(region(2), expected=first)
    assert first != second
    assert bench.directory.read().revision == second


def test_refuses_to_publish_over_a_change_it_has_not_seen(bench: Bench) -> None:
    """Of two who start from the same revision, the second must read again."""
    first = bench.directory.publish(region(1), expected=None)
    bench.other.publish(region(2), expected=first)
    with pytest.raises(DirectoryConflictError):
        bench.directory.publish(region(3), expected=first)
    with pytest.raises(DirectoryConflictError):
        bench.directory.publish(region(3), expected=None)
    assert bench.directory.read().hierarchy.epoch == 2


def test_refuses_an_epoch_that_does_not_rise(bench: Bench) -> None:
    """Nodes order configurations by their epoch, so it may neither stay nor fall."""
    revision = bench.directory.publish(region(5), expected=None)
    for epoch in (4, 5):
        with pytest.raises(DirectoryConflictError):
            bench.directory.publish(region(epoch), expected=revision)


def test_a_change_ends_the_wait(bench: Bench) -> None:
    """Who waits gets the new region, not only the news of it."""
    revision = bench.directory.publish(region(1), expected=None)
    bench.while_waiting(lambda: bench.other.publish(region(2), expected=revision))
    state = bench.directory.wait_for_change(revision, 30)
    assert state is not None
    assert state.hierarchy.epoch == 2
    assert state.revision != revision


def test_a_change_made_before_the_wait_is_not_missed(bench: Bench) -> None:
    """Waiting from an old revision returns at once."""
    first = bench.directory.publish(region(1), expected=None)
    bench.other.publish(region(2), expected=first)
    state = bench.directory.wait_for_change(first, 30)
    assert state is not None
    assert state.hierarchy.epoch == 2


def test_the_wait_ends_with_nothing_when_nothing_changes(bench: Bench) -> None:
    """None, and the region stays as it was."""
    revision = bench.directory.publish(region(1), expected=None)
    assert bench.directory.wait_for_change(revision, 0.05) is None


def test_a_region_that_is_spoilt_is_reported_as_such(bench: Bench) -> None:
    """Whoever edits the store by hand gets the faults of the region file."""
    bench.directory.publish(region(1), expected=None)
    bench.overwrite(region_text(region(2)).replace("epoch: 2", "epoch: two"))
    with pytest.raises(RegionFileError, match="epoch"):
        bench.directory.read()
    bench.overwrite("region: [")
    with pytest.raises(RegionFileError, match="YAML"):
        bench.directory.read()


def test_a_registration_goes_before_the_region_file(bench: Bench) -> None:
    """The registered place while there is one, the region's otherwise, None if neither."""
    bench.directory.publish(region(), expected=None)
    assert bench.other.endpoint_of(CITY) == "10.0.0.1:7443"
    assert bench.other.endpoint_of(COUNTY) is None
    bench.directory.register(CITY, "10.9.9.9:7444")
    bench.directory.register(COUNTY, "county.example:7445")
    bench.let_checks_pass()
    assert bench.other.endpoint_of(CITY) == "10.9.9.9:7444"
    assert bench.other.endpoint_of(COUNTY) == "county.example:7445"
    bench.directory.deregister(CITY)
    assert bench.other.endpoint_of(CITY) == "10.0.0.1:7443"
    assert bench.other.endpoint_of(COUNTY) == "county.example:7445"


def test_a_registration_can_be_told_from_the_region(bench: Bench) -> None:
    """What a node said itself is one thing, what the region says of it another."""
    bench.directory.publish(region(), expected=None)
    assert bench.other.registration_of(CITY) is None
    bench.directory.register(CITY, "10.9.9.9:7444")
    bench.let_checks_pass()
    assert bench.other.registration_of(CITY) == "10.9.9.9:7444"
    bench.directory.deregister(CITY)
    assert bench.other.registration_of(CITY) is None
    with pytest.raises(NodeUnknownError):
        bench.other.registration_of(NodeId("141099"))


def test_a_later_registration_replaces_the_earlier(bench: Bench) -> None:
    """A node that came back elsewhere is found where it is."""
    bench.directory.publish(region(), expected=None)
    bench.directory.register(COUNTY, "10.0.0.2:7443")
    bench.directory.register(COUNTY, "[fd00::2]:7443")
    bench.let_checks_pass()
    assert bench.directory.endpoint_of(COUNTY) == "[fd00::2]:7443"


def test_taking_back_what_was_never_registered_is_no_error(bench: Bench) -> None:
    """A node that stops twice stops cleanly."""
    bench.directory.publish(region(), expected=None)
    bench.directory.deregister(COUNTY)
    assert bench.directory.endpoint_of(COUNTY) is None


def test_refuses_a_node_that_the_region_does_not_have(bench: Bench) -> None:
    """Neither registered nor looked up."""
    bench.directory.publish(region(), expected=None)
    stranger = NodeId("141099")
    with pytest.raises(NodeUnknownError):
        bench.directory.register(stranger, "10.0.0.2:7443")
    with pytest.raises(NodeUnknownError):
        bench.directory.endpoint_of(stranger)


def test_refuses_an_endpoint_that_is_none(bench: Bench) -> None:
    """Host and port, or nothing is written."""
    bench.directory.publish(region(), expected=None)
    with pytest.raises(ValueError, match="host:port"):
        bench.directory.register(COUNTY, "nowhere")
    bench.let_checks_pass()
    assert bench.directory.endpoint_of(COUNTY) is None
