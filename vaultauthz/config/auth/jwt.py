"""JWT: a token that another system signs and Vault checks, from a file or a command.

Sources: ``path_login.go`` and ``claims.go`` of vault-plugin-auth-jwt 0.25, hashicorp/cap's
``jwt.go``, which checks for it and for Kubernetes, and OpenBao 2.7's answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from vaultauthz.config import files
from vaultauthz.config.auth import (
    LIST_ROLES,
    READ_CONFIG,
    ROLE,
    Attachment,
    LoginFile,
    LoginRequest,
    Refusal,
    RefusedLogin,
    RoleMethod,
    Surroundings,
    alone,
    given_to,
    keys_of,
    no_login,
)
from vaultauthz.config.document import Scalar
from vaultauthz.config.keys import Key, one_of_two
from vaultauthz.config.kinds import TEXT, file, many
from vaultauthz.config.reader import Value
from vaultauthz.core.secret import Secret, is_token

EXPIRED: Final = ("token is expired", "invalid expiration time")
EARLY: Final = ("token not yet valid", "issued in the future")


@dataclass(frozen=True, slots=True)
class Jwt(RoleMethod):
    """A JWT from a file, or what a command prints; one of the two is set."""

    name: ClassVar[str] = "jwt"
    first: ClassVar[str] = "role: gateway, token_file: gateway.jwt"

    role: str
    token_file: Path | None = None
    token_command: tuple[str, ...] = ()  # run without a shell
    mount: str = "jwt"

    def login(self, here: Surroundings) -> LoginRequest:
        """With the JWT of now."""
        return LoginRequest(f"{self.at}/login", {"role": self.role, "jwt": self._token(here)})

    def _token(self, here: Surroundings) -> Secret:
        if self.token_file is not None:
            token, origin = here.text(self.token_file, "JWT"), "the JWT file holds"
        else:
            token, origin = here.printed(self.token_command), "the token command printed"
        if not is_token(token.reveal()):
            raise no_login(f"what {origin} is no JWT")
        return token

    @property
    def files(self) -> tuple[LoginFile, ...]:
        return (LoginFile("token_file", self.token_file),) if self.token_file else ()

    def attached(self, policy: str) -> Attachment:
        # Without its type Vault takes the role for one of OIDC.
        return given_to(self.role_path(), "role_type=jwt", *alone(policy))

    refusals: ClassVar = (
        Refusal(
            ("role … could not be found", "missing role"),
            "there is no such role",
            "correct role, or write it in Vault",
            LIST_ROLES,
        ),
        Refusal(
            ("oidc role_type",),
            "the role is one of OIDC, for people with a browser, which is what role_type is without "
            "a word",
            "write the role with role_type=jwt",
        ),
        Refusal(
            ("no audiences bound",),
            "the token has an audience (aud), and the role has no bound_audiences",
            "write the token's audience into bound_audiences",
        ),
        Refusal(
            ("audience (aud)", "aud claim does not match"),
            "the token's audience (aud) is not among the role's bound_audiences",
            "add it to bound_audiences, or have the token issued for one of those",
        ),
        Refusal(
            ("subject (sub)", "sub claim does not match"),
            "the token's subject (sub) is not the role's bound_subject",
            "correct bound_subject, letter by letter",
        ),
        Refusal(
            ("issuer (iss)",),
            "the token's issuer (iss) is not the method's bound_issuer",
            "correct bound_issuer, letter by letter (also a slash at its end)",
            READ_CONFIG,
        ),
        Refusal(
            ("claim … is missing", "associated bound claim", "claim is not a"),
            "a claim of the token is not as bound_claims of the role wants it",
            "compare bound_claims (and bound_claims_type) with the token's claims",
        ),
        Refusal(
            ("claim … not found in token", "could not be converted to string"),
            "the token has not the claim that the role's user_claim (or groups_claim) names",
            "write a claim that it has into user_claim, such as sub",
        ),
        Refusal(
            EXPIRED,
            "the token has expired, or Vault's clock is ahead",
            "have whatever issues the token put a fresh one there, and set the clocks (NTP)",
            (),
        ),
        Refusal(
            EARLY,
            "the token is not yet valid for Vault: the issuer's clock is ahead of Vault's",
            "set the clocks (NTP); clock_skew_leeway and not_before_leeway of the role allow for "
            "more than a minute",
        ),
        Refusal(
            ("no issued at (iat)",),
            "the token has neither iat, nbf nor exp",
            "have it issued with an end (exp)",
            (),
        ),
        Refusal(
            ("three parts", "compact jws", "token must be signed", "unexpected algorithm"),
            "what the file or the command gives is no JWT that is signed as Vault wants it",
            "look what is written there (one JWT and nothing else); jwt_supported_algs names the "
            "algorithms",
            READ_CONFIG,
        ),
        Refusal(
            ("fetching keys", "get keys failed"),
            "Vault could not fetch the issuer's keys",
            "let Vault out to jwks_url or oidc_discovery_url, with jwks_ca_pem or "
            "oidc_discovery_ca_pem",
            READ_CONFIG,
        ),
        Refusal(
            ("no known key", "verifying token signature"),
            "none of the method's keys signed the token: another issuer's, or keys that were changed",
            "compare jwks_url, oidc_discovery_url or jwt_validation_pubkeys with the issuer's keys",
            READ_CONFIG,
        ),
        Refusal(
            ("could not load configuration", "configuring token validator", "keyset configuration"),
            "the method has no keys, or cannot fetch them from the issuer",
            "write oidc_discovery_url, jwks_url or jwt_validation_pubkeys; Vault has to reach the "
            "first two",
            READ_CONFIG,
        ),
    )

    def unexplained(self, refused: RefusedLogin) -> Refusal:
        return Refusal(
            (),
            "the role's bound audience, subject or claims are not the token's",
            "compare bound_audiences, bound_subject and bound_claims of the role with the token's "
            f"claims, and its issuer and keys with {self.config_path}",
        )


def _command(value: Value) -> tuple[str, ...]:
    if isinstance(value.node, Scalar):
        raise value.wrong("wants a list, as no shell reads it; write [PROGRAM, WORD, WORD]")
    items = value.items()
    if not items:
        raise value.wrong("is an empty list; name the program that prints the token")
    words = value.each(files.argument)
    if len(words) < len(items):
        return ()  # what is wrong with the others is noted already
    return (str(files.program(items[0])), *words[1:])


Jwt.keys = keys_of(
    Jwt,
    ROLE,
    Key(
        "token_file",
        file(files.awaited_private),
        "Holds the JWT; read at each login.",
        "It may come later.",
    ),
    Key(
        "token_command",
        many(TEXT.about("A word of it."), _command, least=1),
        "Prints the JWT: the program and its words; no shell is used.",
        "A list, see below.",
    ),
    conditions=(
        one_of_two(
            "token_file",
            "token_command",
            "add token_file: FILE, or token_command: [PROGRAM, WORD]",
        ),
    ),
)
