"""What the options ask for: a request, or why they make no sense."""

from __future__ import annotations

import argparse

from migrate import memory, reached, switch, words
from migrate.report import file as report_file
from migrate.request import Along, ForwardsRequest, Named, RecoverRequest, Request, SeveralRequest
from migrate.ssh import host


def request(options: argparse.Namespace) -> Request | SeveralRequest | RecoverRequest | ForwardsRequest:
    """Return what was asked for.

    :raises UsageError: it makes no sense.
    """
    if options.end and not options.forwards:
        raise words.wrong("--end needs --forwards")
    if options.forwards:
        return _forwards_request(options)
    if options.recover:
        return _recover_request(options)
    if options.resume or options.release or options.force:
        raise words.wrong("--resume, --release and --force need --recover")
    if options.container or options.unit:
        return _one(options, 0, _alone(options), _beside(options))
    *chosen, host = _words(options)
    each = [(pid, Named(process=process)) for pid, process in map(words.process, chosen)]
    if len(each) == 1:
        return _one(options, *each[0], host)
    if host.isdecimal():
        raise words.wrong(f"HOST is missing behind the PIDs: {host}")
    if options.report:
        raise words.wrong("--report is of one process: name one alone")
    return SeveralRequest(
        each=tuple(_one(options, pid, name, host) for pid, name in each), keep_going=options.keep_going
    )


def _words(options: argparse.Namespace) -> list[str]:
    """Those that name processes, and HOST; that is "" for a check without one."""
    found = list(options.pid)
    if len(found) == 1 and options.check:
        return [*found, ""]
    if len(found) < 2:
        raise words.wrong("PID and HOST are needed")
    _host(found[-1])
    return found


def _alone(options: argparse.Namespace) -> Named:
    """A container or a unit, which is moved alone."""
    if options.container and options.unit:
        raise words.wrong("--container and --unit exclude each other")
    if options.unit:
        return Named(unit=words.unit(options.unit))
    if options.copy_files:
        raise words.wrong("--container brings its files along, and takes no --copy-files")
    return Named(container=words.container(options.container))


def _beside(options: argparse.Namespace) -> str:
    """HOST beside :func:`_alone`, "" for a check without one."""
    if options.check and not options.pid:
        return ""
    if len(options.pid) != 1:
        which = "--container" if options.container else "--unit"
        raise words.wrong(f"{which} takes the place of PID: HOST alone is needed beside it")
    return _host(options.pid[0])


def _one(options: argparse.Namespace, pid: int, named: Named, host: str) -> Request:
    return Request(
        pid=pid,
        host=host,
        named=named,
        check=options.check,
        along=_along(options),
        switch=words.switch(options.switch, switch.OWN, switch.names),
        memory=words.known("--memory", options.memory, memory.OWN, lambda: [*memory.OWN]),
        timeout_s=words.seconds("--timeout", options.timeout),
        max_gap_s=words.seconds("--max-gap", options.max_gap),
        way=reached.way(options),
        report_file=options.report and report_file.check(options.report),
        stop_at=options.stop_at,
    )


def _along(options: argparse.Namespace) -> Along:
    return Along(
        copy_files=options.copy_files,
        copy_trees=tuple(dict.fromkeys(map(words.tree, options.copy_tree))),
        external_sockets=tuple(dict.fromkeys(map(words.unix_socket, options.external_socket))),
        shell_job=options.shell_job,
        leave_supervisor=options.leave_supervisor,
        addresses=tuple(dict.fromkeys(map(words.address, options.address))),
        no_address=_no_address(options),
    )


def _recover_request(options: argparse.Namespace) -> RecoverRequest:
    if options.pid:
        raise words.wrong("--recover takes no PID and no HOST")
    if options.report:
        raise words.wrong("--recover takes no --report")
    if options.resume and options.release:
        raise words.wrong("--resume and --release exclude each other")
    if options.force and not (options.resume or options.release):
        raise words.wrong("--force needs --resume or --release")
    return RecoverRequest(
        resume=options.resume,
        release=options.release,
        force=options.force,
    )


def _forwards_request(options: argparse.Namespace) -> ForwardsRequest:
    if options.pid or options.recover or options.json or options.report:
        raise words.wrong("--forwards is used alone, or with --end")
    return ForwardsRequest(end=options.end)


def _no_address(options: argparse.Namespace) -> bool:
    if options.no_address and options.address:
        raise words.wrong("--address and --no-address exclude each other")
    return bool(options.no_address)


def _host(text: str) -> str:
    host.split(text)
    return text
