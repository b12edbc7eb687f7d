"""Signatures that are computed for each request: AWS Signature Version 4, and HMAC.

Everything here is a function of the request, the credential, the time and a nonce; the
last two are passed in. A form (``SigV4``, ``Hmac``) is what the configuration says;
``signer`` makes of it and of one credential what signs requests.
"""

from vaultauthz.core.signing.hmac_form import Hmac
from vaultauthz.core.signing.outgoing import Outgoing, Signer, SigningError
from vaultauthz.core.signing.sigv4 import SigV4

__all__ = ["Hmac", "Outgoing", "SigV4", "Signer", "SigningError"]
