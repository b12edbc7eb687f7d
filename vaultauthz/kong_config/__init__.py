"""``vaultauthz kong config``: what goes into kong.conf and kong.yml, made from our configuration."""
