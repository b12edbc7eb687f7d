"""What Kong's nginx writes of requests by itself, and who has accepted a credential in it.

No plugin can keep these out of its logs, as it can what Kong's log plugins write. In an error's
line stand ``upstream: "http://host/path?query"`` and the Referer, in each line of the access
log (``kong_log_format``) ``$remote_user``, ``$http_referer`` and ``$http_user_agent``: all of
the request as it went to the upstream. (nginx 1.22 with lua-nginx-module 0.10.23, Kong 3.9.3.)
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Final

from vaultauthz.config.reader import Value
from vaultauthz.core.injection import Injection

QUERY: Final = "kong_query_in_logs"
USERNAME: Final = "kong_username_in_logs"
WORD: Final = "accepted"
_LOGGED: Final = frozenset(("referer", "user-agent"))
# Which forms a key of the upstream is about.
KEYS: Final[Mapping[str, Callable[[Injection], bool]]] = MappingProxyType(
    {QUERY: lambda i: bool(i.parameter_names), USERNAME: lambda i: i.user_is_secret}
)
_WHY: Final = {
    QUERY: 'would be in Kong\'s error.log: nginx appends upstream: "http://host/path?query" to '
    "each error line of a request, a timeout's as well, and no plugin can take it out",
    USERNAME: "would be in Kong's access.log: its $remote_user is the user name, which here is, or "
    "may be, the credential, and no plugin can take it out",
}
_FORM: Final = {
    QUERY: "query",
    USERNAME: "basic, with the credential as its user name, or encoded by somebody else",
}
_OUT: Final = {
    QUERY: "put it in a header; or,",
    USERNAME: "give Kong a log format without $remote_user, and",
}


def note(value: Value, injection: Injection, accepted: Collection[str]) -> None:
    """Note what keeps this entry of ``inject`` from being used under Kong."""
    for key, is_it in KEYS.items():
        if is_it(injection) and key not in accepted:
            value.report.unfit_for_kong(
                value.line,
                value.key,
                f"{_WHY[key]}; {_OUT[key]} where who reads that log may have the credential, "
                f"say {key}: {WORD} at the upstream",
            )
    for name in _logged(injection):
        value.report.unfit_for_kong(
            value.line,
            value.key,
            f"would be in Kong's access.log, which has the header {name} of each request; "
            "put it in another header",
        )


def _logged(injection: Injection) -> Iterable[str]:
    # A header without a field is the configuration's own text, as a User-Agent may be.
    if injection.signature or injection.field_names:
        return sorted(_LOGGED.intersection(injection.header_names))
    return ()


def needless(accepted: Iterable[str], inject: Collection[Injection]) -> Iterable[tuple[str, str]]:
    """The keys that no form of ``inject`` is about, each with the form that it is for."""
    if not inject:
        return ()  # it was refused, and may have been one
    return [(key, _FORM[key]) for key in accepted if not any(map(KEYS[key], inject))]
