"""What a child's refusal of a question means: who may stand in for it, and who may not."""

from __future__ import annotations

from typing import cast

import pytest

from federation.availability import SiteUnavailableError
from federation.core.coverage import SiteState
from federation.core.model import Basis, Freshness, PartialRequest
from federation.manifest import SignedManifest
from hierarchy_config import NodeId
from node.links import LinkHub
from node.questions import LinkAsker
from replication.channel import AskRefusedError


class RefusingHub:
    """A hub behind which every child answers with one status."""

    def __init__(self, status: str) -> None:
        self.status = status

    async def ask(
        self, to: NodeId, method: str, body: bytes, *, remaining_ms: int, manifest: bytes = b""
    ) -> bytes:
        """The refusal."""
        raise AskRefusedError(self.status, "no")


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("MANIFEST_REFUSED", SiteState.DENIED),
        ("PLAN_MISMATCH", SiteState.DENIED),
        ("QUERY_REFUSED", SiteState.DENIED),
        ("UNKNOWN_METHOD", SiteState.NO_ANALYTICS),
        ("ASK_TIMEOUT", SiteState.MISSING),
        ("OVERLOADED", SiteState.MISSING),
        ("STORAGE_BUSY", SiteState.MISSING),
        ("CONFIG_EPOCH_MISMATCH", SiteState.MISSING),
        ("A_CODE_OF_A_LATER_RELEASE", SiteState.MISSING),
    ],
)
async def test_only_a_no_to_the_question_is_a_denial(status: str, state: SiteState) -> None:
    """An unknown status leaves the site to its ancestors' copies."""
    asker = LinkAsker(cast(LinkHub, RefusingHub(status)))
    request = PartialRequest("SELECT 1", Freshness.BEST, Basis.RESIDENCE, "141002001201")
    with pytest.raises(SiteUnavailableError) as refused:
        await asker.ask("141002001201", request, SignedManifest(b"", b"", b""), 1000)
    assert refused.value.state is state
