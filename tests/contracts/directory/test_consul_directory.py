"""What only a directory in Consul has: health, tokens, refusals, a missing package."""

from __future__ import annotations

import sys

import pytest

from hierarchy_config import ConsulMissingError, DirectoryConflictError, NodeId, region_text
from hierarchy_config.consul_directory import ConsulDirectory
from hierarchy_config.directory import DirectoryUnreachableError
from tests.contracts.directory.conftest import region
from tests.contracts.directory.consul_double import ConsulDouble

COUNTY = NodeId("141002")


def test_a_node_whose_check_fails_is_not_handed_out(
    consul_double: ConsulDouble, consul_directory: ConsulDirectory
) -> None:
    """Critical before the first check and after a failed one: the region's endpoint is used."""
    consul_directory.publish(region(), expected=None)
    consul_directory.register(NodeId("1410"), "10.9.9.9:7444")
    assert consul_directory.endpoint_of(NodeId("1410")) == "10.0.0.1:7443"
    consul_double.set_health("passing")
    assert consul_directory.endpoint_of(NodeId("1410")) == "10.9.9.9:7444"
    consul_double.set_health("critical")
    assert consul_directory.endpoint_of(NodeId("1410")) == "10.0.0.1:7443"


def test_registers_with_a_grpc_health_check_over_tls(
    consul_double: ConsulDouble, consul_directory: ConsulDirectory
) -> None:
    """The agent is told to ask the node's health service, and when to forget it."""
    consul_directory.publish(region(), expected=None)
    consul_directory.register(COUNTY, "10.0.0.2:7443")
    service = consul_double.state.services["fenhe-linfen-141002"]
    assert (service["address"], service["port"], service["tags"]) == (
        "10.0.0.2",
        7443,
        ["141002"],
    )
    assert service["checks"] == [
        {
            "grpc": "10.0.0.2:7443",
            "interval": "10s",
            "grpc_use_tls": True,
            "timeout": "5s",
            "DeregisterCriticalServiceAfter": "72h",
        }
    ]


def test_check_and_set_decides_between_two_who_publish_at_once(
    consul_double: ConsulDouble, consul_directory: ConsulDirectory
) -> None:
    """A write that slips in between our read and our write is not overwritten."""
    revision = consul_directory.publish(region(1), expected=None)
    theirs = region_text(region(2)).encode("utf-8")
    consul_double.state.before_next_put.append(
        lambda: consul_double.put("fenhe/linfen/region", theirs)
    )
    with pytest.raises(DirectoryConflictError):
        consul_directory.publish(region(3), expected=revision)
    assert consul_directory.read().hierarchy.epoch == 2


def test_a_restored_consul_with_a_lower_index_is_a_change(
    consul_double: ConsulDouble, consul_directory: ConsulDirectory
) -> None:
    """An index that goes back is not waited for."""
    revision = consul_directory.publish(region(1), expected=None)
    key, (_, value) = next(iter(consul_double.state.values.items()))
    consul_double.state.values[key] = (3, value)
    state = consul_directory.wait_for_change(revision, 30)
    assert state is not None
    assert state.revision == "3"


def test_a_server_that_answers_at_once_does_not_make_it_spin(consul_double: ConsulDouble) -> None:
    """Between two answers that bring nothing new it pauses."""
    now = 0.0
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        nonlocal now
        now += seconds
        pauses.append(seconds)

    directory = ConsulDirectory(
        "127.0.0.1", consul_double.port, region="linfen", pause=pause, monotonic=lambda: now
    )
    revision = directory.publish(region(), expected=None)
    consul_double.state.answers_at_once = True
    assert directory.wait_for_change(revision, 5) is None
    assert pauses == [1.0] * 5
    directory.close()


@pytest.mark.parametrize("status", [403, 500])
def test_a_refusal_is_one_clear_error(
    consul_double: ConsulDouble, consul_directory: ConsulDirectory, status: int
) -> None:
    """Whatever the agent answers, the caller sees one error that may be tried again."""
    consul_double.state.refuse_with = status
    with pytest.raises(DirectoryUnreachableError) as caught:
        consul_directory.read()
    assert caught.value.retryable
    assert caught.value.hint


def test_nobody_at_the_port_is_the_same_error() -> None:
    """A port that nobody listens on."""
    double = ConsulDouble()
    port = double.port
    double.close()
    directory = ConsulDirectory("127.0.0.1", port, region="linfen")
    with pytest.raises(DirectoryUnreachableError, match=f"127.0.0.1:{port}"):
        directory.read()
    directory.close()


def test_the_configured_token_is_sent_and_the_environment_is_not_asked(
    consul_double: ConsulDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    """py-consul would let CONSUL_HTTP_TOKEN override the configuration."""
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", "of-the-environment")
    directory = ConsulDirectory("127.0.0.1", consul_double.port, region="linfen", token="ours")
    directory.publish(region(), expected=None)
    assert set(consul_double.state.tokens) == {"ours"}
    directory.close()


def test_a_missing_package_is_one_clear_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is named, and how to install it."""
    monkeypatch.setitem(sys.modules, "consul", None)
    with pytest.raises(ConsulMissingError, match="the extra `consul`") as caught:
        ConsulDirectory("127.0.0.1", 8500, region="linfen")
    assert caught.value.code == "CONSUL_MISSING"
    assert "pip install 'fenhe[consul]'" in caught.value.hint
