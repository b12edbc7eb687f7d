"""Keys of the contract that this version does not have yet.

They are told apart from typing mistakes: "not supported in this version" rather
than "unknown key". Whoever builds one deletes its word here and adds it to the
keys of its section.
"""

from __future__ import annotations

from typing import Final

AUTH: Final = ("secret_id_wrapped",)
AUTH_METHODS: Final = ("aws", "azure", "cert", "gcp", "jwt", "ldap", "oidc", "userpass")
UPSTREAM: Final = ("increment",)
SECRET: Final = ("increment",)
INJECT: Final = ("hmac", "sigv4")

TEXT: Final = "is not supported in this version"
