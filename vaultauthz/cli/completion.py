"""``completion`` and ``help``: what the command line tells of itself.

A script is static: it is made from the commands and options that there are, and asks nobody.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from vaultauthz.cli.arguments import Commands, Options, Parser
from vaultauthz.cli.parsing import actions, command_of, commands, summaries, takes_file

_FILES: Final = "files"
_ANY: Final = "any"  # what nobody can guess

_BASH: Final = """\
# bash completion of vaultauthz, written by `vaultauthz completion bash`. For each shell to come:
#   vaultauthz completion bash > ~/.local/share/bash-completion/completions/vaultauthz
_vaultauthz() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} place="" words="" i
    for ((i = 1; i < COMP_CWORD; i++)); do
        case "$place ${COMP_WORDS[i]}" in
            %(places)s) place+=" ${COMP_WORDS[i]}" ;;
        esac
    done
    case "$place $prev" in
%(values)s
        *)
            case "$place" in
%(words)s
            esac
            ;;
    esac
    if [[ $words == files ]]; then
        compopt -o filenames 2>/dev/null
        local IFS=$'\\n'
        COMPREPLY=($(compgen -f -- "$cur"))
    else
        COMPREPLY=($(compgen -W "$words" -- "$cur"))
    fi
}
complete -F _vaultauthz vaultauthz
"""
_ZSH: Final = """\
#compdef vaultauthz
# zsh completion of vaultauthz, written by `vaultauthz completion zsh`. For each shell to come:
#   vaultauthz completion zsh > "${fpath[1]}/_vaultauthz"
_vaultauthz() {
    local place="" prev=${words[CURRENT-1]} i
    local -a found
    for ((i = 2; i < CURRENT; i++)); do
        case "$place ${words[i]}" in
            %(places)s) place+=" ${words[i]}" ;;
        esac
    done
    case "$place $prev" in
%(values)s
    esac
    if [[ ${words[CURRENT]} == -* ]]; then
        case "$place" in
%(options)s
        esac
    else
        case "$place" in
%(words)s
        esac
    fi
    _describe vaultauthz found
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then _vaultauthz "$@"; else compdef _vaultauthz vaultauthz; fi
"""
_FISH: Final = """\
# fish completion of vaultauthz, written by `vaultauthz completion fish`. For each shell to come:
#   vaultauthz completion fish > ~/.config/fish/completions/vaultauthz.fish
function __vaultauthz_at
    set -l place
    for word in (commandline -opc)[2..-1]
        switch "$place $word"
            case %(places)s
                set place "$place $word"
        end
    end
    test "$place" = "$argv[1]"
end
complete -c vaultauthz -f
%(lines)s
"""


@dataclass(frozen=True, slots=True)
class _Flag:
    """An option: its names, what it is for, and its values: words, ``files``, ``any``; () for none."""

    names: tuple[str, ...]
    text: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Spot:
    """Where one is after a command: ``words`` is "" or `` config check``, with a blank before each word."""

    words: str
    below: Mapping[str, str]  # commands, with a line about each
    flags: tuple[_Flag, ...]
    values: tuple[str, ...]  # what stands there without an option

    @property
    def names(self) -> tuple[str, ...]:
        """Of all its options."""
        return tuple(name for flag in self.flags for name in flag.names)

    @property
    def valued(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Each option that takes a value, after the words that lead to it, and those values."""
        for flag in self.flags:
            if flag.values:
                yield from ((f"{self.words} {name}", flag.values) for name in flag.names)


def add_completion(below: Commands, whole: Callable[[], Parser]) -> None:
    """``whole`` makes the parser of all commands."""
    completion = below.add_parser(
        "completion",
        help="print what completes commands and options in a shell",
        description=_completion.__doc__,
    )
    completion.add_argument("shell", choices=tuple(SHELLS), metavar="SHELL", help="bash, zsh, fish")
    completion.set_defaults(run=lambda options: _completion(options, whole()))


def add_help(below: Commands, whole: Callable[[], Parser]) -> None:
    """``whole`` makes the parser of all commands."""
    shown = below.add_parser("help", help="say more of a command", description=_help.__doc__)
    shown.add_argument("command", nargs="*", metavar="COMMAND", help="such as: config check")
    shown.set_defaults(run=lambda options: _help(options, whole()))


def _completion(options: Options, parser: Parser) -> int:
    """Print a script that completes commands, options and files.

    For a shell that runs: source <(vaultauthz completion bash), or with zsh; in fish: vaultauthz
    completion fish | source. The script says where it goes for those to come.
    """
    sys.stdout.write(script(options.shell, parser))
    return 0


def _help(options: Options, parser: Parser) -> int:
    """Say of a command what its --help says; without one, which commands there are."""
    at: list[str] = []
    for word in options.command:
        here = command_of(parser, at)
        if word not in commands(here):
            here.parse_args([word])  # it says what is wrong, and ends
        at.append(word)
    command_of(parser, at).print_help()
    return 0


def script(shell: str, parser: Parser) -> str:
    """The completion of one of ``SHELLS``."""
    return SHELLS[shell](list(_places(parser, parser)))


def _places(parser: Parser, whole: Parser, words: str = "") -> Iterator[_Spot]:
    flags: list[_Flag] = []
    values: tuple[str, ...] = ()
    for action in actions(parser):
        if action.option_strings:
            text = " ".join((action.help or "").split())
            flags.append(_Flag(tuple(action.option_strings), text, _values(action)))
        else:
            values = _values(action)
    if words == " help":
        values = tuple(commands(whole))
    yield _Spot(words, summaries(parser), tuple(flags), values)
    for name, below in commands(parser).items():
        yield from _places(below, whole, f"{words} {name}")


def _values(action: argparse.Action) -> tuple[str, ...]:
    if action.nargs == 0:
        return ()
    if action.choices:
        return tuple(str(choice) for choice in action.choices)
    return (_FILES,) if takes_file(action) else (_ANY,)


def _quoted(*words: str) -> str:
    """For bash and zsh."""
    return "'" + " ".join(words).replace("'", "'\\''") + "'"


def _bash(places: list[_Spot]) -> str:
    values = [
        f"        {_quoted(there)}) words={_bash_words(words)} ;;"
        for place in places
        for there, words in place.valued
    ]
    words = [
        f"                {_quoted(place.words)}) "
        f"words={_bash_words(tuple(place.below) or place.values or place.names)}; "
        f"[[ $cur != -* ]] || words={_quoted(*place.names)} ;;"
        for place in places
    ]
    return _BASH % {
        "places": _alternatives(places),
        "values": "\n".join(values),
        "words": "\n".join(words),
    }


def _bash_words(values: tuple[str, ...]) -> str:
    return _quoted() if values == (_ANY,) else _quoted(*values)


def _alternatives(places: list[_Spot]) -> str:
    return "|".join(_quoted(place.words) for place in places if place.words)


def _zsh(places: list[_Spot]) -> str:
    values = [
        f"        {_quoted(there)}) {_zsh_values(words)}; return ;;"
        for place in places
        for there, words in place.valued
    ]
    options, words = [], []
    for place in places:
        described = (f"{name}:{flag.text}" for flag in place.flags for name in flag.names)
        options.append(f"            {_quoted(place.words)}) found=({_zsh_list(described)}) ;;")
        if place.below:
            below = _zsh_list(f"{name}:{text}" for name, text in place.below.items())
            words.append(f"            {_quoted(place.words)}) found=({below}) ;;")
        elif place.values:
            words.append(
                f"            {_quoted(place.words)}) {_zsh_values(place.values)}; return ;;"
            )
    return _ZSH % {
        "places": _alternatives(places),
        "values": "\n".join(values),
        "options": "\n".join(options),
        "words": "\n".join(words),
    }


def _zsh_list(described: Iterable[str]) -> str:
    return " ".join(map(_quoted, described))


def _zsh_values(values: tuple[str, ...]) -> str:
    if values == (_ANY,):
        return ":"
    return "_files" if values == (_FILES,) else f"compadd -- {' '.join(map(_quoted, values))}"


def _fish(places: list[_Spot]) -> str:
    lines = []
    for place in places:
        where = f'__vaultauthz_at "{place.words}"'
        at = f"complete -c vaultauthz -n {_fish_quoted(where)}"
        for name, text in place.below.items():
            lines.append(f"{at} -a {name} -d {_fish_quoted(text)}")
        if place.values == (_FILES,):
            lines.append(f"{at} -F")
        elif place.values and place.values != (_ANY,):
            lines.append(f"{at} -a {_fish_quoted(' '.join(place.values))}")
        for flag in place.flags:
            names = " ".join(
                f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}"
                for name in flag.names
            )
            lines.append(f"{at} {names}{_fish_values(flag.values)} -d {_fish_quoted(flag.text)}")
    wanted = " ".join(_fish_quoted(place.words) for place in places if place.words)
    return _FISH % {"places": wanted, "lines": "\n".join(lines)}


def _fish_values(values: tuple[str, ...]) -> str:
    if not values:
        return ""
    if values == (_FILES,):
        return " -r -F"
    return " -x" if values == (_ANY,) else f" -x -a {_fish_quoted(' '.join(values))}"


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


SHELLS: Final[Mapping[str, Callable[[list[_Spot]], str]]] = MappingProxyType(
    {"bash": _bash, "zsh": _zsh, "fish": _fish}
)
