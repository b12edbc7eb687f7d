"""``init``: a first configuration, from flags or from three questions."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from vaultauthz.cli.arguments import Commands, Options, takes_config

if TYPE_CHECKING:
    from vaultauthz.config import Config
    from vaultauthz.config.first import FirstAnswers


def add_init(commands: Commands) -> None:
    init = commands.add_parser(
        "init",
        help="write a first configuration, with comments",
        description=_init.__doc__,
    )
    takes_config(init)
    init.add_argument(
        "--vault", metavar="ADDRESS", help="Vault's: https://HOST:PORT (default: $VAULT_ADDR)"
    )
    init.add_argument("--auth", metavar="METHOD", help="how it logs in, as docs/auth.md has it")
    init.add_argument("--upstream", metavar="NAME", help="the first service behind the gateway")
    init.add_argument(
        "--secret",
        metavar="PATH",
        help="where in Vault its credential comes from; kv:PATH, path:PATH, pki:PATH or static_role:PATH "
        "where the path does not tell",
    )
    init.add_argument("--to", metavar="URL", help="where that service is: https://HOST:PORT")
    init.add_argument("--force", action="store_true", help="overwrite the file that is there")
    init.set_defaults(run=_init)


def _init(options: Options) -> int:
    """Write a first configuration, with comments, and say what comes next.

    What the options do not say is asked for on a terminal. No secret is asked for, and none is written.
    """
    from vaultauthz.config.first import first_config, problems, read_first

    path: Path = options.config
    if path.exists() and not options.force:
        return _refused(f"{path} is there already; name another by -c, or overwrite it by --force")
    try:
        answers = _answers(options)
    except (EOFError, KeyboardInterrupt):
        print(file=sys.stderr)
        return _refused("nothing was written")
    if answers is None:
        return 2
    found = problems(answers)
    if found:
        print(*(f"vaultauthz: {line}" for line in found), sep="\n", file=sys.stderr)
        return 2
    try:
        with path.open("w" if options.force else "x", encoding="utf-8") as file:
            file.write(first_config(answers))
    except OSError as exc:
        return _refused(f"{path} cannot be written: {(exc.strerror or 'no').lower()}")
    print("\n".join(_next(path, read_first(answers, path))))
    return 0


def _answers(options: Options) -> FirstAnswers | None:
    """From the options, and where they say nothing from whoever sits there; None when nobody does."""
    from vaultauthz.config.first import FirstAnswers

    address = os.environ.get("VAULT_ADDR") or os.environ.get("BAO_ADDR")
    given = {
        name: value
        for name in ("vault", "auth", "upstream", "secret", "to")
        if (value := getattr(options, name)) is not None
    }
    answers = replace(FirstAnswers(), **given)
    if not sys.stdin.isatty():
        if "vault" not in given and address:
            answers, given = replace(answers, vault=address), {**given, "vault": address}
        lacking = [n for n in ("vault", "auth", "upstream", "secret") if n not in given]
        if lacking:
            named = ", ".join(f"--{name}" for name in lacking)
            _refused(f"nobody is there to be asked, as this is no terminal; give {named}")
            return None
        return answers
    if "vault" not in given:
        answers = _asked("Where is Vault?", address or answers.vault, answers, _vault)
    if "auth" not in given:
        answers = _asked(_methods(), answers.auth, answers, _auth)
    if not {"upstream", "secret"} <= given.keys():
        usual = f"{answers.upstream} {answers.secret}"
        answers = _asked(_FIRST, usual, answers, _upstream)
    return answers


_FIRST = (
    "The first service behind the gateway: its name, the path of its secret in Vault and, if you know it,\n"
    "where it is (https://HOST:PORT)?"
)


def _methods() -> str:
    from vaultauthz.config.first import LOGINS

    return f"How does vaultauthz log in: {', '.join(LOGINS)}?"


def _asked(
    question: str,
    usual: str,
    answers: FirstAnswers,
    take: Callable[[FirstAnswers, str], FirstAnswers | None],
) -> FirstAnswers:
    """The answers with one more, asked for until it can stand in the file."""
    from vaultauthz.config.first import problems

    while True:
        print(f"{question} [{usual}]", file=sys.stderr)
        taken = take(answers, input("> ").strip() or usual)
        found = problems(taken) if taken else ("a name and a path, with a blank between them",)
        if taken and not found:
            return taken
        print(*(f"  {line}" for line in found), sep="\n", file=sys.stderr)


def _vault(answers: FirstAnswers, said: str) -> FirstAnswers:
    return replace(answers, vault=said)


def _auth(answers: FirstAnswers, said: str) -> FirstAnswers:
    return replace(answers, auth=said)


def _upstream(answers: FirstAnswers, said: str) -> FirstAnswers | None:
    words = said.split()
    if len(words) not in (2, 3):
        return None
    name, secret, *to = words
    return replace(answers, upstream=name, secret=secret, to=to[0] if to else answers.to)


def _next(path: Path, config: Config) -> list[str]:
    """What to do now."""
    from vaultauthz.config.first import STAGE

    given = "" if str(path) == "vaultauthz.yaml" else f" -c {shlex.quote(str(path))}"
    login = config.stages[STAGE].auth
    # Others are another program's to write, as Kubernetes' token is.
    folder = path.absolute().parent
    ours = (file.path for file in login.files if file.path.is_relative_to(folder))
    files = ", ".join(map(str, ours))
    put = [f"put there what the login needs, readable by its user alone: {files}"] if files else []
    steps = [
        (
            f"let it read in Vault what it needs: vaultauthz policy{given} | bao policy write vaultauthz-{STAGE} -\n"
            f"     and make the login of docs/auth.md#{login.name}"
        ),
        *put,
        f"see whether all of it works: vaultauthz doctor --fetch{given}",
        f"run it: vaultauthz serve{given}",
        f"and the gateway: vaultauthz envoy{given} > envoy.yaml (or vaultauthz kong config{given})",
    ]
    return [
        f"{path} is written. callers: any lets whoever reaches the gateway use the credential: narrow it. Then",
        *(f"  {number}. {step}" for number, step in enumerate(steps, 1)),
    ]


def _refused(why: str) -> int:
    print(f"vaultauthz: {why}", file=sys.stderr)
    return 2
