"""``vaultauthz kong config``: what goes into kong.conf and kong.yml, made from our configuration."""

from vaultauthz.kong_config.command import Asked, run

__all__ = ["Asked", "run"]
