"""Words of the command line: what reads them, what each must be. All raise UsageError where one makes no sense."""

from __future__ import annotations

import argparse
import ipaddress
import os
import re
from collections.abc import Callable, Mapping
from typing import NoReturn

from migrate.errors import UsageError
from migrate.request import AUTO, FORWARD, apart, ways

#: The largest that any kernel gives (include/linux/threads.h PID_MAX_LIMIT).
_PID_MAX = 1 << 22
_PROGRAM = re.compile(r"[^\W_][^\s/\x00-\x1f\x7f]{0,254}")
_UNIT = re.compile(r"[A-Za-z0-9:_.\\@][A-Za-z0-9:_.\\@-]{0,246}\.service")
_CONTAINER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,254}(@(podman|runc|crun))?")


class Parser(argparse.ArgumentParser):
    """Raises instead of leaving the program; whose help it names is the command's, e.g. of ``migrate ps``."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, hint=f"See `{' '.join(self.prog.split()[:2])} --help`.")


def number(name: str, text: str, largest: int) -> int:
    """From 1 to *largest*."""
    # isdecimal() alone would take digits of other scripts.
    if not (text.isascii() and text.isdecimal() and 0 < int(text) <= largest):
        raise wrong(f"{name} is a number from 1 to {largest}, not {text!r}")
    return int(text)


def process(text: str) -> tuple[int, str]:
    """A PID, or what else names a process: ``:PORT``, or the name of its program. The other one is 0, or "".

    A name of digits alone is a PID.
    """
    if text.startswith(":"):
        return 0, f":{number('the port behind the colon', text[1:], 65535)}"
    if any(character.isdecimal() for character in text) and not any(map(str.isalpha, text)):
        return number("PID", text, _PID_MAX), ""
    if not _PROGRAM.fullmatch(text):
        raise wrong(f"PID is a number, the name of a program, or : and a TCP port, not {text!r}")
    return 0, text


def seconds(name: str, text: str | float) -> float:
    """A time, at most a day."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 1 <= value <= 86400:
        raise wrong(f"{name} is a number of seconds from 1 to 86400, not {text!r}")
    return value


def address(text: str) -> str:
    """An address that clients can use, as Python writes it."""
    try:
        ip = ipaddress.ip_address(text)
    except ValueError:
        raise wrong(f"--address is an IPv4 or IPv6 address without a prefix length, not {text!r}") from None
    if ip.is_unspecified or ip.is_loopback or ip.is_multicast:
        raise wrong(f"--address is an address that clients of the process use, not {text!r}")
    return str(ip)


def tree(text: str) -> str:
    """The path of a directory; whether there is one is found out later."""
    if not text.startswith("/") or not text.isprintable() or os.path.normpath(text) != text or text == "//":
        raise wrong(
            f"--copy-tree is the absolute path of a directory, without a slash at its end, not {text!r}"
        )
    return text


def no_address(wanted: bool, addresses: list[str]) -> bool:
    """Whether --no-address was said, and not --address as well."""
    if wanted and addresses:
        raise wrong("--address and --no-address exclude each other")
    return wanted


def unix_socket(text: str) -> str:
    """The path of a unix socket, as the kernel shows it for who listens there."""
    if not text.startswith("/") or not text.isprintable() or text.endswith("/"):
        raise wrong(
            f"--external-socket is the absolute path of a unix socket, as ss -xlp shows it, not {text!r}"
        )
    return text


def known(name: str, kind: str, own: tuple[str, ...], names: Callable[[], list[str]]) -> str:
    """The name of one way to do something.

    :param own: ours.
    :param names: all of them, with those of other packages, which are looked for only if it is none of ours.
    """
    if kind not in own and kind not in (found := names()):
        raise wrong(f"{name} is one of {', '.join(found)}, not {kind!r}")
    return kind


def switch(text: str, own: Mapping[str, str], names: Callable[[], list[str]]) -> str:
    """A way to switch traffic, perhaps with a colon and what it wants to know behind it; two, ``forward+KIND``; or
    ``auto``.

    :param own: of ours what that is, "" for nothing, in brackets if it may be left out; a path begins with a slash.
    :param names: see :func:`known`.
    """
    forward, rest = apart(text)
    if forward and (rest or text != forward):
        if ways(rest) <= {AUTO, FORWARD}:
            raise wrong(f"--switch {forward}+ is followed by one of the other ways, not by {rest!r}")
        return f"{switch(forward, own, names)}+{switch(rest, own, names)}"
    name, colon, rest = text.partition(":")
    known("--switch", name, (*own, AUTO), lambda: [*names(), AUTO])
    wanted = "" if name == AUTO else own.get(name, rest)
    if wanted.startswith("[") and not colon:
        return text
    wanted = wanted.strip("[]")
    if colon and not wanted:
        raise wrong(f"--switch {name} is followed by nothing, not by {rest!r}")
    if (wanted and not rest) or not rest.isprintable() or (wanted[:1] == "/" and rest[:1] != "/"):
        raise wrong(f"--switch {name} is followed by a colon and {wanted}: {name}:{wanted}")
    return text


def word(name: str, text: str) -> str:
    """A name or path that nothing takes for an option."""
    if not text or text.startswith("-") or not text.isprintable():
        raise wrong(f"{name} is a name or path, not {text!r}")
    return text


def container(text: str) -> str:
    """The name of a container, and perhaps ``@`` and its runtime behind it."""
    if not _CONTAINER.fullmatch(text):
        raise wrong(
            f"--container is the name of a container, perhaps with @podman, @runc or @crun behind it, not {text!r}"
        )
    return text


def unit(text: str) -> str:
    """The name of a service of systemd; its ``.service`` may be left out."""
    name = text if text.endswith(".service") else f"{text}.service"
    if not is_unit(name):
        raise wrong(f"--unit is the name of a service of systemd, not {text!r}")
    return name


def is_unit(name: str) -> bool:
    """Whether *name*, which may come from the network, can be that of a service (man systemd.unit(5))."""
    return _UNIT.fullmatch(name) is not None and ".." not in name


def wrong(text: str) -> UsageError:
    """What is raised where the words make no sense."""
    return UsageError(text, hint="See `migrate --help`.")
