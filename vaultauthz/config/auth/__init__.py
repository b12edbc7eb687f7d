"""What an auth method is: one class, in one file of this folder, that answers for all of it.

Its keys, the login that it makes of them, its files, what Vault locks of it, how a refusal of
it reads, where its role is in Vault: the readers of the configuration, the session that logs
in, ``doctor`` and ``policy`` ask the method. Nothing here opens a file or a connection: what a
login needs comes from ``Surroundings``, and what it comes to is a ``LoginRequest``, which
``vaultauthz.vault.auth`` carries out. ``methods`` lists them all.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Final, Protocol, Self, cast

from vaultauthz.config import kinds
from vaultauthz.config.keys import Condition, Key, Reader, Section
from vaultauthz.config.kinds import TEXT
from vaultauthz.config.reader import Table, Value
from vaultauthz.core.grant import Failure, Verdict
from vaultauthz.core.secret import Secret, is_token

ROLE_NAME: Final = "ROLE"  # where the configuration does not know the role's name
NOBODY: Final = "vaultauthz-doctor"  # no user's name and no role's


class NoLoginError(Exception):
    """There is nothing to log in with, or what Vault answered is no login.

    ``failure`` is what the login's machine acts on, ``detail`` for the operator's log only.
    """

    def __init__(self, failure: Failure, detail: str = "") -> None:
        self.failure = failure
        self.detail = detail
        super().__init__(failure.reason)


def no_login(reason: str, verdict: Verdict = Verdict.RETRY) -> NoLoginError:
    """The error to raise; nothing of what a service answered belongs into its text."""
    return NoLoginError(Failure(verdict, reason))


@dataclass(frozen=True, slots=True, repr=False)
class ServiceReply:
    """An HTTP answer of a cloud's own service. ``headers`` takes a name in any letter case."""

    status: int
    headers: Mapping[str, str]
    data: bytes


@dataclass(frozen=True, slots=True, repr=False)
class SignedFields:
    """Fields of a login, and what stands in them coded and must be ``hidden``, too."""

    body: Mapping[str, str | Secret]
    hidden: tuple[str, ...] = ()


class Surroundings(Protocol):
    """What a login is made from. Whatever cannot be had is raised as the login's failure."""

    environ: Mapping[str, str]

    def text(self, path: Path, what: str) -> Secret:
        """What stands in the file now; ``what`` names it in errors."""

    def printed(self, command: tuple[str, ...]) -> Secret:
        """What the command prints, run without a shell."""

    def unwrapped(self, mount: str, token: Secret) -> Secret:
        """The secret_id that a response-wrapping token of the AppRole mount gives once."""

    def asked(
        self, who: str, url: str, headers: Mapping[str, str], params: Mapping[str, str]
    ) -> ServiceReply:
        """What a service of the machine's cloud answers; ``who`` names it in errors."""

    def signed(self, method: AuthMethod) -> SignedFields:
        """What a cloud's own library, the method's ``library``, makes for the login."""


@dataclass(frozen=True, slots=True, repr=False)
class Lockout:
    """A login that Vault locks after some wrong ones in a row.

    ``name`` is what Vault counts for, ``secret`` what is tried, from ``files``. ``by_others``:
    not Vault itself checks it, so that one that is right may be found wrong, and one without an
    answer counts. ``again``: one that worked before is tried again when it is refused.
    """

    name: str
    secret: Secret | None
    files: tuple[Path, ...] = ()
    by_others: bool = False
    again: bool = True


@dataclass(frozen=True, slots=True, repr=False)
class LoginRequest:
    """One call to Vault: ``path`` is written to with ``body``, or read where that is None.

    A ``Secret`` of the body, and whatever else is ``hidden``, is kept out of Vault's texts.
    ``token`` goes along as a header: that of a login which is none.
    """

    path: str
    body: Mapping[str, str | Secret] | None = None
    token: Secret | None = None
    hidden: tuple[str, ...] = ()
    lockout: Lockout | None = None


@dataclass(frozen=True, slots=True)
class LoginFile:
    """A file that a login reads. ``private``: nothing else guards what is in it.

    ``watched``: its change makes a new login worth a try. Not what is renewed for its own sake,
    as a service account's token is: the login it gave lasts.
    """

    key: str  # of the configuration: secret_id_file
    path: Path
    private: bool = False
    watched: bool = False


# Verbs of Vault's command line, and what follows them; `{role}` is the path of the role,
# `{config}` that of the method's own settings, `{roles}` where its roles are listed.
READ_ROLE: Final = (("read", "{role}"),)
READ_CONFIG: Final = (("read", "{config}"),)
READ_BOTH: Final = (*READ_ROLE, *READ_CONFIG)
LIST_ROLES: Final = (("list", "{roles}"),)


@dataclass(frozen=True, slots=True)
class Refusal:
    """How a refused login reads: why it is refused, what to do about it, where to look.

    ``texts``: one of them is in Vault's own text, as ``VaultError.says`` reads it; () where
    Vault says nothing, and the causes are told that are left. The texts are those of Vault
    1.21, of its auth plugins of that release and of OpenBao 2.7, from the sources that each
    file names, or as they were answered in our tests.
    """

    texts: tuple[str, ...]
    means: str
    mend: str
    commands: tuple[tuple[str, str], ...] = READ_ROLE


@dataclass(frozen=True, slots=True)
class RefusedLogin:
    """A login that did not work. ``status`` is Vault's, 0 where it was not asked.

    ``mounted``: whether the method is known to be there.
    """

    status: int
    reason: str = ""
    mounted: bool | None = None


@dataclass(frozen=True, slots=True)
class Attachment:
    """How a policy is given to a login: a sentence, and words around ``-namespace`` after `bao`."""

    sentence: str
    commands: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]


@dataclass(frozen=True, slots=True)
class VaultAsConfigured:
    """What of ``vault`` a login may depend on: where it is, and the certificate it is shown."""

    addresses: tuple[str, ...]
    client_cert: Path | None = None
    client_key: Path | None = None


class AuthMethod(ABC):
    """The configuration of a stage's login, and all that is to be known of its method.

    Files are read again at each login, so that whatever writes them may replace them.
    """

    __slots__ = ()

    name: ClassVar[str]
    first: ClassVar[str]  # its keys in a configuration that `vaultauthz init` writes, as YAML
    keys: ClassVar[Section[Any]]
    library: ClassVar[str] = ""  # that ``Surroundings.signed`` needs, as pip takes it
    refusals: ClassVar[tuple[Refusal, ...]] = ()  # by Vault's words, the first that fits counts
    # Whether a 403 may be the method's own no, and not only that of `token_bound_cidrs` or of a
    # mount that is not there.
    denies: ClassVar[bool] = False
    # Whether `token_bound_cidrs` are looked at in the login, and not only by its token's calls.
    bound_at_login: ClassVar[bool] = True
    roles: ClassVar[str] = "role"  # below the mount: its roles, users or certificates
    settings: ClassVar[str] = "config"  # … and what it has been set to
    # Whether the token is ours to renew and revoke, or another program's.
    owns_token: ClassVar[bool] = True

    @property
    @abstractmethod
    def mount(self) -> str:
        """Where it is, below auth/; "" for a token from a file."""

    @classmethod
    def read(cls, table: Table, vault: VaultAsConfigured) -> Self:
        """Of a table of its ``keys``; by certificate, the login may use that of ``vault``."""
        return cast(Self, cls.keys.build(table))

    @abstractmethod
    def login(self, here: Surroundings) -> LoginRequest:
        """The call that logs in now.

        Raises:
            NoLoginError: there is nothing to do it with.
        """

    @abstractmethod
    def unexplained(self, refused: RefusedLogin) -> Refusal:
        """The causes that are left of a refusal that Vault's words don't tell."""

    def denial(self, *, by_policy: bool) -> Failure | None:
        """What a 403 to the login means where the method knows better."""
        return None

    def granted(self, request: LoginRequest, answer: dict[str, Any]) -> dict[str, Any]:
        """Vault's answer in the form of a login's.

        Raises:
            NoLoginError: it is none.
        """
        return answer

    def of_nobody(self) -> LoginRequest:
        """A login that names nobody, and is no try: what refuses it is there."""
        return LoginRequest(f"{self.at}/login", {})

    def attached(self, policy: str) -> Attachment:
        """How its tokens are given this policy and no other."""
        return given_to(self.role_path(), *alone(policy))

    @abstractmethod
    def role_path(self, name: str = "") -> str:
        """Where what sets its tokens' lives is; ``name`` is an AppRole's, as Vault tells it."""

    @property
    def at(self) -> str:
        """Where it is mounted."""
        return f"auth/{self.mount}"

    @property
    def roles_path(self) -> str:
        """Where its roles are listed."""
        return f"{self.at}/{self.roles}"

    @property
    def config_path(self) -> str:
        """Where the method's own settings are."""
        return f"{self.at}/{self.settings}"

    @property
    def files(self) -> tuple[LoginFile, ...]:
        """The files that its login reads."""
        return ()

    @property
    def locked_name(self) -> str | None:
        """What Vault locks after some wrong tries; None for a method that locks nothing."""
        return None

    @property
    def wrapped_in(self) -> Path | None:
        """The file of a wrapping token, which gives once what the login needs; None for none."""
        return None

    @property
    def client_certificate(self) -> tuple[Path, Path] | None:
        """The certificate and the key that each call of the stage presents; None: as `vault` says."""
        return None

    @property
    def takes_endless(self) -> bool:
        """Whether a token without an end is what the configuration wants."""
        return False


class RoleMethod(AuthMethod):
    """A method whose login names a role; "" lets Vault find the one that fits."""

    __slots__ = ()

    role: str

    def role_path(self, name: str = "") -> str:
        return f"{self.at}/{self.roles}/{self.role or ROLE_NAME}"


def keys_of(
    method: type[AuthMethod],
    *keys: Key,
    conditions: tuple[Condition, ...] = (),
    refused: Mapping[str, str] = MappingProxyType({}),
    mounted: bool = True,
) -> Section[Any]:
    """A method's table: its own ``keys``, and those that each method has."""
    name = Key("method", Reader(Value.text, {"const": method.name}), "The auth method.")
    mount = Key("mount", TEXT.by(kinds.mount), "Where it is mounted in Vault.")
    return Section(
        method,
        f"Login by {method.name}.",
        name,
        *keys,
        *((mount,) if mounted else ()),
        conditions=conditions,
        refused=refused,
        secretive=True,
    )


ROLE: Final = Key("role", TEXT, "The role in Vault.", missing="add the name of the role in Vault")


def alone(policy: str) -> tuple[str, ...]:
    """The settings of a role whose tokens have this policy and no other."""
    return f"token_policies={policy}", "token_no_default_policy=true"


def given_to(role: str, *settings: str) -> Attachment:
    """A policy that the settings of a role give to its tokens."""
    unknown = f" ({ROLE_NAME}: its role's name)" if role.endswith(f"/{ROLE_NAME}") else ""
    return Attachment(
        f"Give it to the login, in place of any other policy{unknown}:",
        ((("write",), (role, *settings)),),
    )


def fields_in(who: str, reply: ServiceReply) -> dict[str, Any]:
    """The JSON object in a service's answer.

    Raises:
        NoLoginError: there is none.
    """
    try:
        found = json.loads(reply.data)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise no_login(f"the answer of {who} is no JSON object")
    return found


def token_in(who: str, value: object) -> Secret:
    """``value`` of a service's answer as the token that proves an identity.

    Raises:
        NoLoginError: it cannot be one.
    """
    if not is_token(value):
        raise no_login(f"the answer of {who} has no token in it")
    return Secret(str(value))


def not_this_identity(method: AuthMethod) -> Refusal:
    """What is left of a cloud login's refusal."""
    return Refusal(
        (),
        "the role does not name this identity, there is no such role, or Vault cannot check it "
        "with the cloud (a wrong clock counts as well)",
        f"compare what the role is bound to with this machine's identity, and {method.config_path}",
    )
