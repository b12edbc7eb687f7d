"""``vaultauthz policy``: the policies as HCL or JSON, or Vault's own judgement of them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, TextIO

from vaultauthz.config.values import Config
from vaultauthz.core.file_text import NoTextError, text_of
from vaultauthz.core.secret import Secret, is_token
from vaultauthz.policy import hcl, verify
from vaultauthz.policy.hcl import PolicyError
from vaultauthz.policy.stage import StagePolicy, policy_name, stage_policy
from vaultauthz.policy.verify import Judgement, Operator, Question, TrialError, Verifier, trial
from vaultauthz.terminal import Output, columns
from vaultauthz.vault.errors import VaultError
from vaultauthz.vault.probe import Probe

_COLUMNS: Final = ["PATH", "WANTS", "HELD", "SEEN"]
_LARGEST_TOKEN: Final = 64 * 1024  # bytes of its file


@dataclass(frozen=True, slots=True)
class PolicyOptions:
    """The command's options; ``vault_token`` is what the environment has."""

    stage: str | None = None
    verify: bool = False
    token_file: Path | None = None
    vault_token: str = ""


def run(config: Config, options: PolicyOptions, out: Output, err: TextIO) -> int:
    """Print or verify; the exit status: 1 when something is not held, 2 when it cannot be told."""
    try:
        return _run(config, options, out, err)
    except (PolicyError, TrialError) as exc:
        err.write(f"vaultauthz: {exc}\n")
        return 2


def _run(config: Config, options: PolicyOptions, out: Output, err: TextIO) -> int:
    names, token = _names(config, options.stage), _token(options)
    if options.verify and token is None:
        raise PolicyError("--verify wants your token: set $VAULT_TOKEN or name a --token-file")
    # To verify one, the others' paths are needed too.
    made = config.stages if options.verify else names
    known = {name: stage_policy(config, name, token) for name in made}
    chosen = [known[name] for name in names]
    err.writelines(f"warning: {text}\n" for policy in chosen for text in policy.warnings)
    if options.verify and token is not None:
        return _Judge(config, token, err).run(chosen, known.values(), out)
    if out.as_json:
        out.json({policy.stage: policy.as_json() for policy in chosen})
    else:
        # Not by `lines`, which would break a long one for the terminal: this must stay HCL.
        out.out.write(_one_text(chosen))
    return 0


def _names(config: Config, stage: str | None) -> list[str]:
    if stage is not None and stage not in config.stages:
        raise PolicyError(f"there is no stage {stage!r}; stages: {', '.join(config.stages)}")
    names: dict[str, str] = {}
    for one in config.stages:
        other = names.setdefault(policy_name(one), one)
        if other != one:
            raise PolicyError(
                f"stages {other} and {one} would share a policy, as Vault takes names without "
                "regard to case; rename one"
            )
    return [stage] if stage is not None else list(config.stages)


def _token(options: PolicyOptions) -> Secret | None:
    """The operator's token: the file's, else the environment's; None for neither."""
    text, place = options.vault_token.strip(), "$VAULT_TOKEN"
    if options.token_file is not None:
        text, place = _read(options.token_file), str(options.token_file)
    elif not text:
        return None
    if not is_token(text):
        raise PolicyError(f"{place} holds no token")
    return Secret(text)


def _read(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return text_of(opened.read(_LARGEST_TOKEN))
    except (OSError, NoTextError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else f"it {exc}"
        raise PolicyError(f"{file}: the token cannot be read: {why}") from None


def _one_text(policies: list[StagePolicy]) -> str:
    texts = [policy.text for policy in policies]
    if len(texts) > 1:
        texts.insert(0, hcl.comment(f"{len(texts)} policies, to be written one by one: --stage"))
    return "\n".join(texts)


# --- --verify: each stage's policy tried out, and what came of it told ---


class _Judge:
    """Tries policies out with the operator's ``token``; ``err`` hears of what is left behind."""

    def __init__(self, config: Config, token: Secret, err: TextIO) -> None:
        self._config = config
        self._token = token
        self._err = err
        self._clean = True

    def run(self, chosen: Sequence[StagePolicy], known: Iterable[StagePolicy], out: Output) -> int:
        """Try ``chosen`` out, among all that are ``known``; 1 when something is not held or left.

        Raises:
            TrialError: one of them could not be tried; what was written is removed.
        """
        every = list(known)
        found = {policy: self._findings(policy, every) for policy in chosen}
        if out.as_json:
            _tell_programs(found, out)
        else:
            _tell_people(found, out)
        held = all(finding.held for findings in found.values() for finding in findings)
        return 0 if held and self._clean else 1

    def _findings(self, policy: StagePolicy, every: list[StagePolicy]) -> tuple[Judgement, ...]:
        probe = Probe(self._config.vault_of(policy.stage), time.monotonic)
        question = _question(policy, every)
        try:
            with trial(Operator(probe, self._token), policy.text, self._left) as (token, name):
                return tuple(Verifier(probe, token, name).findings(question))
        except VaultError as exc:
            raise TrialError(
                f"stage {policy.stage}: Vault could not be asked: {exc.explained}"
            ) from exc
        except TrialError as exc:
            raise TrialError(f"stage {policy.stage}: {exc}") from exc
        except KeyboardInterrupt:
            raise TrialError(f"stage {policy.stage}: interrupted") from None

    def _left(self, text: str) -> None:
        self._clean = False
        self._err.write(f"vaultauthz: {text}\n")


def _question(policy: StagePolicy, every: Iterable[StagePolicy]) -> Question:
    others = [
        need
        for other in every
        # Paths of another namespace say nothing in this one.
        if other is not policy and other.namespace == policy.namespace
        for need in other.needs
    ]
    foreign = list(verify.foreign_paths(policy.needs, others))
    return Question(policy.needs, foreign, policy.kv_secrets)


_Found = Mapping[StagePolicy, tuple[Judgement, ...]]


def _tell_programs(found: _Found, out: Output) -> None:
    out.json(
        {
            policy.stage: {**policy.as_json(), "verify": [asdict(one) for one in findings]}
            for policy, findings in found.items()
        }
    )


def _tell_people(found: _Found, out: Output) -> None:
    for policy, findings in found.items():
        cells = [
            [one.path, ", ".join(one.wanted), "yes" if one.held else "NO", one.seen]
            for one in findings
        ]
        lacking = sum(not one.held for one in findings)
        summary = f"{lacking} of {len(findings)} not held" if lacking else "all held"
        table = columns([_COLUMNS, *cells], out.width, least=3)
        out.lines(f"policy {policy.name}, stage {policy.stage}", *table, summary, "")
