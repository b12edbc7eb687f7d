"""Envoy's access logs: who used which credential, and what the upstream made of it.

Where Envoy asks us (ext_authz), the audit line was written by the check, and an entry brings
one thing more: the upstream's answer. Where it does not ask (SDS), the entry is the audit line.

They come over gRPC (``stream``), or from a file (``follower``), which costs Envoy less and keeps
what is written while we are away. We follow it as ``tail -F`` does and remember how far its lines
are in the audit log: each request has its line there, and after a crash some have two.
"""
