"""Envoy's door: its messages to ours and back, and the gRPC server that carries them.

No rule lives here. ``request`` and ``response`` translate, ``ext_authz`` is the one check
between them, ``health`` tells Envoy whether to ask us, and ``server`` serves both over one of
two transports; ``door`` is what a server is made with.
"""
