"""A fleet of gateways and a Vault, simulated without threads on vaultauthz's pure machines.

``scenarios`` says what happens; ``gateway`` and ``runner`` drive the machines as
``leases.keeper`` does, by the product's own ``core.calls``; ``vault`` answers them in the
product's own failures, ``tally`` counts, ``timeline`` is the clock.
"""
