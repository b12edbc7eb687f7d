"""Vault's HTTP API through hvac: calls out, our values back.

Every error, Vault's, HTTP's, TLS's or the network's, becomes one ``VaultError``
here (``errors.py``), with a verdict that the lease machine understands.
"""
