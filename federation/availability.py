"""Errors of what this node needs to compute partials: extras, executors, neighbours.

FederationError
├── ExecutorUnavailableError
│   ├── ExtraMissingError      an optional package is not installed
│   └── RayUnavailableError    Ray's processes did not start, or died and took a query along
├── ScanCancelledError         a local scan was cut at its deadline
├── ManifestRefusedError       a signed manifest does not allow what is asked with it
├── ConfigEpochMismatchError   the asker's region file is of another epoch
└── SiteUnavailableError       a child did not answer; the coordinator turns it into coverage
"""

from __future__ import annotations

from federation.core.coverage import SiteState
from federation.errors import ExecutorUnavailableError, FederationError
from hierarchy_config.errors import Fault

__all__ = [
    "ConfigEpochMismatchError",
    "ExtraMissingError",
    "ManifestRefusedError",
    "RayUnavailableError",
    "ScanCancelledError",
    "ScopeUnknownError",
    "SiteSeedingError",
    "SiteUnavailableError",
]


class ExtraMissingError(ExecutorUnavailableError):
    """An optional package that this part needs is not installed."""

    code = "EXTRA_MISSING"

    def __init__(self, extra: str, package: str) -> None:
        super().__init__(
            f"{package} is not installed, so this node cannot do this part.",
            hint=f"Install the extra: pip install 'fenhe[{extra}]'.",
        )
        self.extra = extra


class RayUnavailableError(ExecutorUnavailableError):
    """Ray's processes are not there; the next query starts them anew."""

    code = "RAY_UNAVAILABLE"
    fault = Fault.HERE
    retryable = True
    default_hint = "Ask again (Ray is restarted), or ask with the direct executor."


class ScanCancelledError(FederationError):
    """A local scan was interrupted at its deadline, or because the question was cancelled."""

    code = "SCAN_CANCELLED"
    retryable = True
    default_hint = "Allow the question more time, or narrow its scope."


class SiteSeedingError(FederationError):
    """The columnar replica does not hold the whole log yet, so counting it would be silent loss."""

    code = "SITE_SEEDING"
    retryable = True
    default_hint = "Ask again in a while; `fenhe node status` shows how far the replica is."

    def __init__(self) -> None:
        super().__init__("the columnar replica is still being filled")


class ScopeUnknownError(FederationError):
    """A question's scope is not the node asked, nor below it."""

    code = "SCOPE_UNKNOWN"
    fault = Fault.CALLER
    default_hint = "Ask the node itself, or one above it; see `fenhe hierarchy tree`."


class ManifestRefusedError(FederationError):
    """A question's manifest is unsigned, from the wrong asker, or for another scope."""

    code = "MANIFEST_REFUSED"
    fault = Fault.PEER
    default_hint = "Only an ancestor, or the node itself, may ask a node for partials."


class ConfigEpochMismatchError(FederationError):
    """A question was asked under another region file's epoch than the one in force here."""

    code = "CONFIG_EPOCH_MISMATCH"
    fault = Fault.PEER
    default_hint = "Give both nodes the same region file and restart; its sites are missing so far."

    def __init__(self, asker: str, asked_at: int, here: str, epoch: int) -> None:
        super().__init__(f"{asker} asks at region epoch {asked_at}, {here} is at {epoch}")


class SiteUnavailableError(FederationError):
    """A child gave no answer. It becomes a line of the coverage and never reaches a caller.

    `reason` is one sentence for the analyst.
    """

    code = "SITE_UNAVAILABLE"
    fault = Fault.PEER
    retryable = True

    def __init__(self, site: str, reason: str, *, state: SiteState = SiteState.MISSING) -> None:
        super().__init__(f"site {site}: {reason}")
        self.site = site
        self.reason = reason
        self.state = state
