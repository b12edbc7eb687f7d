"""A fleet of gateways and a Vault, simulated without threads on vaultauthz's pure machines.

``scenarios`` says what happens; ``gateway`` drives the product's machines and its queue of
calls (``core``); ``vault`` answers them in the product's own failures, ``tally`` counts,
``timeline`` is the clock.
"""
