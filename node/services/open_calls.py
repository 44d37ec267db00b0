"""The calls that are being handled, so that those of a revoked peer end at once.

TLS was shaken hands on before; a stream may be open for hours. Each call is judged when it comes
and again whenever keys are revoked. Lives on the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from cryptography import x509

from node.security.errors import PeerRevokedError
from node.security.identity import KeyJudge, peer_chain

__all__ = ["OpenCalls"]

Chain = tuple[x509.Certificate, ...]

_CHAINS_KEPT: Final = 512


@dataclass(slots=True)
class _OpenCall:
    """One call that is being handled. `ended`: why it is cancelled."""

    task: asyncio.Task[object]
    chain: Chain
    ended: PeerRevokedError | None = None


class OpenCalls:
    """Judges callers' chains, at the beginning and while they are open."""

    def __init__(self, judge: KeyJudge) -> None:
        self._judge = judge
        self._open: dict[int, _OpenCall] = {}
        self._next = 0
        self._chains: dict[bytes, Chain] = {}

    def chain_of(self, auth_context: Mapping[str, Iterable[bytes]]) -> Chain:
        """What the peer of a call has shown; read once for the calls of one connection.

        Raises:
            PeerIdentityError: It cannot be read.
        """
        shown = auth_context.get("x509_pem_cert", ()), auth_context.get("x509_pem_cert_chain", ())
        key = b"|".join(b"".join(each) for each in shown)
        chain = self._chains.get(key)
        if chain is None:
            chain = peer_chain(auth_context)
            if len(self._chains) >= _CHAINS_KEPT:
                self._chains.clear()
            self._chains[key] = chain
        return chain

    @contextmanager
    def watched(self, chain: Sequence[x509.Certificate]) -> Iterator[None]:
        """Around the handling of one call.

        Raises:
            PeerRevokedError: A key of the chain is revoked, or was while the call lasted.
        """
        self._judge.refuse(chain)
        task = asyncio.current_task()
        if task is None:
            yield
            return
        self._next += 1
        number, call = self._next, _OpenCall(task, tuple(chain))
        self._open[number] = call
        try:
            yield
        except asyncio.CancelledError:
            if call.ended is None:
                raise
            task.uncancel()
            raise call.ended from None
        finally:
            del self._open[number]

    def look(self) -> None:
        """End the calls of those whose keys are revoked by now."""
        for call in self._open.values():
            try:
                self._judge.refuse(call.chain)
            except PeerRevokedError as error:
                call.ended = error
                call.task.cancel()
