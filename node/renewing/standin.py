"""With what a limited node serves: a certificate of its own name that its own authority signs.

Whoever calls a clinic's node checks its certificate, and would turn away from one that has ended.
The node's authority lasts five years, and may name the node itself. Nobody takes such a certificate
for a node's word (security/identity.py): it serves, and opens no link.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Final

from hierarchy_config.errors import FenheError
from node.clock import Clock
from node.foundations import Foundations, utc_now
from node.logs import get_logger
from node.security.authority import load_authority
from node.security.caller import CallerKind
from node.security.certificates import (
    Validity,
    authority_name,
    certificates_from_pem,
    certificates_to_pem,
    sign_leaf,
)
from node.security.credentials import outside_validity
from node.security.folders import TlsFiles
from node.security.key_files import write_public
from node.security.principal import Principal

__all__ = ["keep_standin", "serving_files"]

LIFETIME: Final = timedelta(days=30)


def serving_files(base: Foundations, clock: Clock) -> TlsFiles:
    """The files that the node's server follows. Blocks."""
    own = base.credentials.tls
    if base.credentials.limited is None or not keep_standin(base, clock):
        return own
    return TlsFiles(_file(base), own.private_key, own.root)


def keep_standin(base: Foundations, clock: Clock) -> bool:
    """Make the certificate, or another before it ends; False: its authority does not hold now.

    Then only those are served whose own clock says what this one does not.
    """
    now, path = utc_now(clock), _file(base)
    if _lasts(path, base, clock):
        return True
    try:
        authority = load_authority(base.paths.data)
        if outside_validity((authority.certificate, *authority.issuers), now) is not None:
            return False
        name = authority_name(authority.certificate)
        leaf = sign_leaf(
            authority,
            Principal(name.region, base.node_id, CallerKind.NODE),
            name.dns_name,
            base.credentials.signer.public_key,
            Validity.starting(now, LIFETIME),
        )
        write_public(path, certificates_to_pem((leaf, *authority.chain)))
    except (OSError, FenheError) as error:
        reason = error.message if isinstance(error, FenheError) else str(error.strerror)
        get_logger("renewing").warning("no certificate to serve with", reason=reason)
        return False
    return True


def _file(base: Foundations) -> Path:
    return base.paths.certs / "limited.pem"


def _lasts(path: Path, base: Foundations, clock: Clock) -> bool:
    """Whether what was made before is good for another while."""
    try:
        chain = certificates_from_pem(path.read_bytes())
    except (OSError, FenheError):
        return False
    if chain[0].public_key() != base.credentials.signer.public_key:
        return False
    now = utc_now(clock)
    return outside_validity(chain, now) is None is outside_validity(chain, now + LIFETIME / 2)
