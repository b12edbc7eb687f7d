"""The plugin: what is asked of Kong in each phase, and what is done about it.

The access phase is a generator. It yields batches of PDK calls and gets their results, or a
promise and gets its answer, and returns the calls that end the event.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from vaultauthz.broker import BindingTable
from vaultauthz.config.values import Config
from vaultauthz.core.callers import Callers
from vaultauthz.core.decision import Decision, Denied, Reason
from vaultauthz.core.redaction import where
from vaultauthz.core.request import Request
from vaultauthz.core.routing import path_of
from vaultauthz.kong import calls, questions
from vaultauthz.kong.calls import Batch
from vaultauthz.kong.enforcement import NOTHING, EncodedCalls, denial, particular
from vaultauthz.kong.log_phase import LogPhase
from vaultauthz.kong.questions import Results
from vaultauthz.kong.registration import Names
from vaultauthz.leases.later import Later

log = logging.getLogger(__name__)

# Seconds for which a request waits for Vault, where it must be asked first.
_WAIT: Final = 5.0
_NUMBERS: Final = 2**31 - 1  # int32, and 0 would be left out of a message
# Kong does not close what it forgets. A number that is dropped while in use does no harm:
# Kong starts the instance anew when it is not known.
_MOST_INSTANCES: Final = 100_000
_NAMED: Final = questions.of_route(named=True)
_ROUTED: Final = questions.batch(questions.of_route(named=False))


class End(NamedTuple):
    """The last calls of an event; ``answers``: the client is answered with them.

    ``take`` gets their results, where anybody wants them; it must not raise.
    """

    batch: Batch
    answers: bool = False
    take: Callable[[Results], None] | None = None


# Sent in: a Results for a Batch, a Decision for a Later.
Steps = Generator[Batch | Later[Decision], Any, End]

_GO_ON: Final = End(NOTHING)
_SERIALIZE: Final = Batch([calls.SERIALIZE])


class PluginConfigError(ValueError):
    """The plugin's configuration, as Kong sent it, is not one."""


@dataclass(slots=True)
class Instance:
    """One configuration of the plugin in Kong, and what its requests are asked.

    The questions hang on our own configuration: they are made anew when that is another.
    """

    upstream: str
    stage: str
    table: BindingTable | None = None
    config: Config | None = None
    asked: Batch = NOTHING
    callers: Callers | None = None


def instance_of(data: bytes | str) -> Instance:
    """The instance for a configuration as JSON, in which Kong has put keys of its own.

    Raises:
        ConfigError: it is no JSON object, or a name in it is no text.
    """
    try:
        config = json.loads(data)
    except ValueError:
        raise PluginConfigError("the plugin's configuration is no JSON") from None
    if not isinstance(config, dict):
        raise PluginConfigError("the plugin's configuration is no object")
    return Instance(_name(config.get("upstream")), _name(config.get("stage")))


def _name(value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise PluginConfigError("upstream and stage of the plugin's configuration are names")
    return value


class Gate:
    """``check`` decides; ``table`` and ``config`` are what it decides by, at this moment.

    ``refused`` hears of what is denied without it.

    Safe for threads, and one for a process, however many instances Kong starts.
    """

    def __init__(
        self,
        check: Callable[[Request], Decision | Later[Decision]],
        table: Callable[[], BindingTable],
        config: Callable[[], Config],
        log_phase: LogPhase,
        refused: Callable[[Request, Denied], None] = lambda _request, _denied: None,
    ) -> None:
        self._check = check
        self._table = table
        self._config = config
        self._log_phase = log_phase
        self._refused = refused
        self._answers = EncodedCalls()

    def begin(self, data: bytes | str) -> Instance:
        """See ``instance_of``; also tells of an upstream that there is not."""
        instance = instance_of(data)
        name, stage = instance.upstream, instance.stage
        if name and self._table().named(name, stage) is None:
            log.warning(
                "a plugin in Kong names upstream %r, stage %r, which the configuration does not "
                "have: its requests are answered 403",
                name[:200],
                stage[:200],
            )
        return instance

    def access(self, instance: Instance) -> Steps:
        """Decide, and put the credential on or answer the client."""
        request = Request("kong", upstream=instance.upstream, stage=instance.stage, wait=_WAIT)
        if instance.upstream:
            known = yield self._asked(instance)
            questions.fill(request, known)
            if instance.callers is not None:
                questions.disown(request, known, instance.callers)
        else:
            yield from self._ask_routed(request)
        decision = self._check(request)
        if isinstance(decision, Later):
            decision = yield decision
        if isinstance(decision, Denied):
            return End(denial(decision, request.request_id), answers=True)
        credential = decision.credential
        if credential is None:
            return _GO_ON
        ready = self._answers.of(decision, credential)
        last = ready.constant
        if ready.questions.calls or decision.signed or decision.dropped:
            answers = (yield ready.questions) if ready.questions.calls else {}
            last += particular(decision, credential.mutation, answers)
        self._log_phase.note(request.request_id, decision)
        return End(last)

    def deny(self, instance: Instance, reason: Reason, retry_after: int = 0) -> Denied:
        """The denial, with its line, where nothing could be decided, or what was decided not be done."""
        upstream, stage = instance.upstream, instance.stage
        denied = Denied(reason, upstream, stage, retry_after)
        try:
            self._refused(Request("kong", upstream=upstream, stage=stage), denied)
        except Exception as exc:  # noqa: BLE001 - the client is answered whatever it is
            log.error("a request in Kong was denied without its line: %s", where(exc))  # noqa: TRY400
        return denied

    def log(self) -> End:
        """See what became of a request: the upstream may have refused the credential."""
        return End(_SERIALIZE, take=self._take_log)

    def _take_log(self, results: Results) -> None:
        self._log_phase.finished(results[calls.SERIALIZE])

    def _asked(self, instance: Instance) -> Batch:
        table, config = self._table(), self._config()
        if instance.table is not table or instance.config is not config:
            binding = table.named(instance.upstream, instance.stage)
            upstream = config.upstreams.get(instance.upstream)
            more = questions.of_binding(binding, upstream) if binding else ()
            instance.asked = questions.batch((*_NAMED, *more))
            instance.callers = binding.callers if binding else None
            instance.table, instance.config = table, config
        return instance.asked

    def _ask_routed(self, request: Request) -> Generator[Batch, Results, None]:
        """Two rounds: only the route says which upstream's rules there are."""
        known = yield _ROUTED
        questions.fill(request, known)
        binding = self._table().routed(request.host, path_of(request.path))
        if binding is None:
            return
        more = questions.of_binding(binding, self._config().upstreams.get(binding.upstream))
        if missing := [call for call in more if call not in known]:
            known |= yield questions.batch(tuple(missing))
            questions.fill(request, known)
        questions.disown(request, known, binding.callers)


class Instances:
    """Numbers begin at random: after a restart, none of the last process's means anything.

    Else a worker that has not heard of the restart would get another route's credential.
    """

    def __init__(self) -> None:
        self._next = secrets.randbelow(_NUMBERS)
        self._known: dict[int, Instance] = {}

    def add(self, instance: Instance) -> int:
        """Its number."""
        while self._next + 1 in self._known:
            self._next = (self._next + 1) % _NUMBERS
        number = self._next + 1
        self._next = number % _NUMBERS
        if len(self._known) >= _MOST_INSTANCES:
            del self._known[next(iter(self._known))]
        self._known[number] = instance
        return number

    def inherit(self, named: Mapping[int, Names], last: int | None) -> None:
        """Go on with another process's; ``last`` is the last number that it gave."""
        for number, (upstream, stage) in named.items():
            self._known.setdefault(number, Instance(upstream, stage))
        if last is not None:
            self._next = last % _NUMBERS

    @property
    def named(self) -> dict[int, Names]:
        """What each number stands for."""
        return {number: (of.upstream, of.stage) for number, of in self._known.items()}

    @property
    def last(self) -> int:
        """The last number that was given."""
        return self._next

    def get(self, number: int) -> Instance | None:
        """The instance of this number, None where there is none."""
        return self._known.get(number)

    def drop(self, number: int) -> None:
        """Kong has closed it."""
        self._known.pop(number, None)
