"""``vaultauthz explain``: what would become of one request, and which rule says so."""
