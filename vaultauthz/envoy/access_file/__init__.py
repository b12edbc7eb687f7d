"""Envoy's access log as a file: who used which credential, where Envoy asks nobody.

It costs Envoy less than the log over gRPC (``envoy.als``), and keeps what is written while we
are away. We follow the file as ``tail -F`` does and remember how far its lines are in the audit
log: each request has its line there, and after a crash some have two.
"""

from vaultauthz.envoy.access_file.follower import Follower

__all__ = ["Follower"]
