"""What shells complete of a command: by shtab, from the parser that also reads its words."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import shtab

#: shell -> where a script of it is, as the shell looks for it.
FILES = {"bash": "bash/{}", "zsh": "zsh/_{}", "fish": "fish/{}.fish"}
#: Values that are names of files, or of directories, by what the help calls them.
_FILES = {"FILE", "PATH"}
_DIRECTORIES = {"DIR", "PREFIX"}
#: What stands beside a word that is offered has room on a line.
_FIRST = re.compile(r"(?:with [^:]+: )?.+?(?=[.:;,]? \(|[.;:] |$)")
#: What the words stand for that the help calls so: commands of any shell that list them, a line each.
_LISTS = {
    "PID": ["ps --ppid 2 -p 2 --deselect -o pid= -o comm= | awk '{print $1; print $2}'"],
    "HOST": [
        "awk '$1 == \"Host\" {for (i = 2; i <= NF; i++) print $i}' ~/.ssh/config /etc/ssh/ssh_config 2>/dev/null",
        "awk '{n = split($1, names, \",\"); for (i = 1; i <= n; i++) print names[i]}' ~/.ssh/known_hosts"
        " /etc/ssh/ssh_known_hosts 2>/dev/null",
    ],
}
#: Whoever starts a program chooses its name, and shells expand what they are to complete: plain names alone pass.
_PLAIN = "grep -Ex '[A-Za-z0-9][A-Za-z0-9._-]*' | sort -u"
#: How a shell of that kind writes a function, and a choice by the word behind the program's name.
_FUNCTION = {"bash": "%s() {\n  %s\n}\n", "zsh": "%s() {\n  %s\n}\n", "fish": "function %s\n  %s\nend\n"}
_IF = {
    "bash": 'if [ "${COMP_WORDS[1]}" = %s ]; then %s; return; fi',
    "zsh": 'if [ "$words[2]" = %s ]; then %s; return; fi',
    "fish": "if contains -- %s (commandline -opc)[2]; %s; return; end",
}
#: How it offers what a function lists; bash's own compgen -W would expand it.
_OFFER = {
    "bash": "local one\n  %s | while IFS= read -r one; do\n"
    '    [[ $one != "$1"* ]] || printf "%%s\\n" "$one"\n  done',
    "zsh": 'local -a found\n  found=("${(@f)$(%s)}")\n  compadd -a found',
    "fish": "%s",
}


def scripts(
    parser: argparse.ArgumentParser, under: Sequence[argparse.ArgumentParser]
) -> Iterator[tuple[str, str]]:
    """Files and their contents.

    :param under: parsers of words that stand in the place of the first argument, e.g. ``migrate plugin``.
    """
    for one in (parser, *below(parser).values()):
        for action in one._actions:
            _teach(action, {each.prog.split()[-1]: list(below(each)) for each in under})
    for shell, name in FILES.items():
        text = shtab.complete(parser, shell)
        yield name.format(parser.prog), re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE).rstrip() + "\n"


def below(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The words that it takes first, and who reads what comes behind each."""
    found: dict[str, argparse.ArgumentParser] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found |= action.choices
    return found


def _teach(action: Any, under: dict[str, list[str]]) -> None:
    """Say what the values of *action* are, where shtab cannot know, and what it is for in a few words."""
    if action.help and action.help != argparse.SUPPRESS:
        action.help = _FIRST.match(action.help).group()
    if action.metavar in _FILES:
        action.complete = shtab.FILE
    elif action.metavar in _DIRECTORIES:
        action.complete = shtab.DIRECTORY
    elif action.metavar in _LISTS:
        if not action.option_strings:
            # Of several words of one kind shells offer no other behind them, and HOST is the last.
            action.nargs = None if action.metavar == "PID" else "*"
        action.complete = _listed(action.metavar, _LISTS[action.metavar], under)
    elif not action.option_strings and not action.choices:
        action.help = argparse.SUPPRESS  # nothing to offer; zsh would offer no options either where it stands


def _listed(name: str, commands: list[str], under: dict[str, list[str]]) -> dict[str, Any]:
    """What completes words that *commands* list.

    :param under: words that may stand in the place of the first argument, and what may stand behind each.
    """
    function = f"_migrate_{name.lower()}s"
    preambles = {}
    for shell, made in _FUNCTION.items():
        ours = [_print(under)] if under and name == "PID" else []
        if name == "HOST":
            ours = [_IF[shell] % (word, _print(words)) for word, words in under.items() if words]
        listing = made % (f"{function}_all", "\n  ".join([*ours, *commands]))
        listing += made % (f"{function}_list", f"{function}_all | {_PLAIN}")
        preambles[shell] = listing + made % (function, _OFFER[shell] % f"{function}_list")
    return {"bash": function, "zsh": function, "fish": f"({function})", "preamble": preambles}


def _print(words: Iterable[str]) -> str:
    return f"printf '%s\\n' {' '.join(words)}"
