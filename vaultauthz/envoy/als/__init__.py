"""Envoy's access logs: who used which credential, and what the upstream made of it.

Where Envoy asks us (ext_authz), the audit line was written by the check, and an entry brings
one thing more: the upstream's answer. Where it does not ask (SDS), the entry is the audit line.
"""

from vaultauthz.envoy.als.access_logs import METHOD, AccessLogs
from vaultauthz.envoy.als.uses import Listeners, Uses
from vaultauthz.envoy.als.versions import Versions

__all__ = ["METHOD", "AccessLogs", "Listeners", "Uses", "Versions"]
