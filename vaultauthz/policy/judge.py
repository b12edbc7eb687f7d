"""``vaultauthz policy --verify``: each stage's policy tried out, and what came of it told."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Final, TextIO

from vaultauthz.config.values import Config
from vaultauthz.core.secret import Secret
from vaultauthz.policy import verify
from vaultauthz.policy.failure import told
from vaultauthz.policy.stage import StagePolicy
from vaultauthz.policy.trial import Operator, TrialError, trial
from vaultauthz.policy.verify import Finding, Question, Verifier
from vaultauthz.terminal import Told, columns
from vaultauthz.vault.errors import VaultError
from vaultauthz.vault.probe import Probe

_COLUMNS: Final = ["PATH", "WANTS", "HELD", "SEEN"]


class Judge:
    """Tries policies out with the operator's ``token``; ``err`` hears of what is left behind."""

    def __init__(self, config: Config, token: Secret, err: TextIO) -> None:
        self._config = config
        self._token = token
        self._err = err
        self._clean = True

    def run(self, chosen: Sequence[StagePolicy], known: Iterable[StagePolicy], out: Told) -> int:
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

    def _findings(self, policy: StagePolicy, every: list[StagePolicy]) -> tuple[Finding, ...]:
        probe = Probe(self._config.vault_of(policy.stage), time.monotonic)
        question = _question(policy, every)
        try:
            with trial(Operator(probe, self._token), policy.text, self._left) as (token, name):
                return tuple(Verifier(probe, token, name).findings(question))
        except VaultError as exc:
            raise TrialError(
                f"stage {policy.stage}: Vault could not be asked: {told(exc)}"
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


_Found = Mapping[StagePolicy, tuple[Finding, ...]]


def _tell_programs(found: _Found, out: Told) -> None:
    out.json(
        {
            policy.stage: {**policy.as_json(), "verify": [asdict(one) for one in findings]}
            for policy, findings in found.items()
        }
    )


def _tell_people(found: _Found, out: Told) -> None:
    for policy, findings in found.items():
        cells = [
            [one.path, ", ".join(one.wanted), "yes" if one.held else "NO", one.seen]
            for one in findings
        ]
        lacking = sum(not one.held for one in findings)
        summary = f"{lacking} of {len(findings)} not held" if lacking else "all held"
        table = columns([_COLUMNS, *cells], out.width, least=3)
        out.lines(f"policy {policy.name}, stage {policy.stage}", *table, summary, "")
