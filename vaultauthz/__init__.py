"""A credential for every upstream: leased from Vault, put on the request last.

``open_broker`` embeds it in a program of your own; see docs/embedding.md.
"""

from __future__ import annotations

__version__ = "0.1.0"
