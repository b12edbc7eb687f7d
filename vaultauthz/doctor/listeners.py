"""The certificates that clients of ours are shown."""

from __future__ import annotations

from vaultauthz.config.values import Listen
from vaultauthz.doctor.facts import Shown
from vaultauthz.server_tls import examined


def shown(listen: Listen, now: float) -> tuple[Shown, ...]:
    """Those of the listeners that have TLS, as they are in their files ``now``."""
    grpc, admin = "listen.grpc_tls", "listen.admin_tls"
    found = []
    for key, files in ((grpc, listen.grpc_tls), (admin, listen.admin_tls)):
        if files:
            trouble, good = examined(files, now, by_grpc=key == grpc)
            left = (good.ends - now) / max(good.ends - good.begins, 1.0) if not trouble else 0.0
            found.append(Shown(key, files.cert, trouble, left, good.ends - now))
    return tuple(found)
