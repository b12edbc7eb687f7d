"""A credential for every upstream: leased from Vault, put on the request last.

``open_broker`` embeds it in a program of your own; see docs/embedding.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vaultauthz.version import __version__

if TYPE_CHECKING:
    from vaultauthz.core.request import Request
    from vaultauthz.embedding import OpenBroker, open_broker

__all__ = ["OpenBroker", "Request", "__version__", "open_broker"]


def __getattr__(name: str) -> object:
    """Load what is asked for when it is: the command line should not wait for it all."""
    if name == "Request":
        from vaultauthz.core.request import Request

        return Request
    if name in ("OpenBroker", "open_broker"):
        from vaultauthz import embedding

        return getattr(embedding, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
