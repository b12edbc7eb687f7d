"""``vaultauthz policy``: the policies as HCL or JSON, or Vault's own judgement of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, TextIO

from vaultauthz.config.values import Config
from vaultauthz.core.file_text import NoTextError, text_of
from vaultauthz.core.secret import Secret, is_token
from vaultauthz.policy import attach, hcl
from vaultauthz.policy.hcl import PolicyError
from vaultauthz.policy.judge import Judge
from vaultauthz.policy.stage import StagePolicy, stage_policy
from vaultauthz.policy.trial import TrialError
from vaultauthz.terminal import Told

_LARGEST_TOKEN: Final = 64 * 1024  # bytes of its file


@dataclass(frozen=True, slots=True)
class Asked:
    """The command's options; ``vault_token`` is what the environment has."""

    stage: str | None = None
    verify: bool = False
    token_file: Path | None = None
    vault_token: str = ""


def run(config: Config, asked: Asked, out: Told, err: TextIO) -> int:
    """Print or verify; the exit status: 1 when something is not held, 2 when it cannot be told."""
    try:
        return _run(config, asked, out, err)
    except (PolicyError, TrialError) as exc:
        err.write(f"vaultauthz: {exc}\n")
        return 2


def _run(config: Config, asked: Asked, out: Told, err: TextIO) -> int:
    names, token = _names(config, asked.stage), _token(asked)
    if asked.verify and token is None:
        raise PolicyError("--verify wants your token: set $VAULT_TOKEN or name a --token-file")
    # To verify one, the others' paths are needed too.
    made = config.stages if asked.verify else names
    known = {name: stage_policy(config, name, token) for name in made}
    chosen = [known[name] for name in names]
    err.writelines(f"warning: {text}\n" for policy in chosen for text in policy.warnings)
    if asked.verify and token is not None:
        return Judge(config, token, err).run(chosen, known.values(), out)
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
        other = names.setdefault(attach.policy_name(one), one)
        if other != one:
            raise PolicyError(
                f"stages {other} and {one} would share a policy, as Vault takes names without "
                "regard to case; rename one"
            )
    return [stage] if stage is not None else list(config.stages)


def _token(asked: Asked) -> Secret | None:
    """The operator's token: the file's, else the environment's; None for neither."""
    text, place = asked.vault_token.strip(), "$VAULT_TOKEN"
    if asked.token_file is not None:
        text, place = _read(asked.token_file), str(asked.token_file)
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
