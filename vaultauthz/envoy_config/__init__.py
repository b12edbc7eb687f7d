"""``vaultauthz envoy``: the Envoy configuration that fits a configuration of ours.

Text, not objects: people read it, so each setting stands beside its reason. ``plan`` says
what there is to configure, the other modules have a part of the file each, ``bootstrap``
puts them together.
"""
