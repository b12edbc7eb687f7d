"""`vaultauthz demo`: the whole way of a request on real parts, told step by step.

Needs the extra `demo`; without it the import raises ModuleNotFoundError.
"""

from vaultauthz.demo.command import run

__all__ = ["run"]
