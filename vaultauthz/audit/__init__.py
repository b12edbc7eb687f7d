"""``vaultauthz audit``: whether a log is whole, what it tells, and how it joins Vault's own."""
