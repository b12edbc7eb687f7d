"""The least Vault policy that each stage needs: found out, printed, tried out.

``needs`` says what vaultauthz calls, ``hcl`` writes that as a policy, ``verify`` has
Vault itself judge it.
"""

from vaultauthz.policy.needs import Need, needs

__all__ = ["Need", "needs"]
