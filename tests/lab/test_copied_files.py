"""Files between hosts: none is taken for the same that is not, none is lost, and no user's link leads astray."""

from __future__ import annotations

import json
import stat
import sys
from collections.abc import Iterator

import pytest
from bad_input_bench import InputBench, stopped_at
from harness.migrate import run_migrate
from harness.wait import eventually

from migrate.lab import Host

SQLITE = (
    "import sqlite3; d = sqlite3.connect('{}'); d.execute('create table if not exists t (a)'); d.commit()"
)


@pytest.fixture
def bench(bench: InputBench) -> Iterator[InputBench]:
    """The files of these tests are in /srv/copied and /run/copied, on both hosts."""
    yield bench
    for host in (bench.origin, bench.destination):
        host.exec(["rm", "-rf", "/srv/copied", "/run/copied", "/etc/victim.conf"])


def both(bench: InputBench) -> tuple[Host, Host]:
    return bench.origin, bench.destination


def test_there_and_back_it_goes_on_with_its_own_data(bench: InputBench) -> None:
    """The same size is not the same file."""
    bench.write(bench.origin, "/srv/copied/data", "FIRST ")
    with bench.server("write=/srv/copied/data") as server:
        there = bench.migrate(server.pid, "destination", "--copy-files")
        assert there.status == 0, there
        bench.write(bench.destination, "/srv/copied/data", "SECOND")
        back = run_migrate(bench.destination, "--copy-files", there.report["destination_pid"], "origin")
        assert back.status == 0, back
        server.serves()
        assert bench.read(bench.origin, "/srv/copied/data") == "SECOND"


def test_the_same_size_is_refused_without_leave_to_copy(bench: InputBench) -> None:
    bench.write(bench.origin, "/srv/copied/data", "origin")
    bench.write(bench.destination, "/srv/copied/data", "other!")
    with bench.server("write=/srv/copied/data") as server:
        found = bench.refused(server)
    assert found.codes == {("other-file", "destination")}
    found.must_say("destination", "/srv/copied/data has other content there", "--copy-files")


def test_a_users_link_is_not_followed(bench: InputBench) -> None:
    bench.write(bench.origin, "/srv/copied/d/victim.conf", "a user's")
    bench.write(bench.destination, "/etc/victim.conf", "root's")
    bench.destination.exec(["sh", "-c", "mkdir /srv/copied && ln -s /etc /srv/copied/d"])
    with bench.server("write=/srv/copied/d/victim.conf") as server:
        found = bench.refused(server, "--copy-files")
    assert found.codes == {("link-in-path", "destination")}
    assert bench.read(bench.destination, "/etc/victim.conf") == "root's"


def test_a_link_that_is_made_after_the_check_is_not_followed(bench: InputBench) -> None:
    """It is copied again in the freeze, and put back after that has failed: through no link either."""
    bench.write(bench.origin, "/srv/copied/d/victim.conf", "a user's")
    bench.write(bench.destination, "/etc/victim.conf", "root's")
    with bench.server("write=/srv/copied/d/victim.conf") as server:
        with stopped_at(bench, "CHECKED", server, "--copy-files") as run:
            bench.write(bench.origin, "/srv/copied/d/victim.conf", "he writes")
            bench.destination.exec(["sh", "-c", "cd /srv/copied && mv d moved && ln -s /etc d"])
            run.go()
            found = run.end()
        assert (found.status, found.report["outcome"]) == (4, "ROLLED_BACK")
        found.must_say("destination", "/srv/copied/d is a symbolic link")
        server.serves()
    assert bench.read(bench.destination, "/etc/victim.conf") == "root's"
    assert not [name for name in bench.names(bench.destination, "/etc") if ".migrate-" in name]


def test_what_is_written_until_the_freeze_is_refused(bench: InputBench) -> None:
    for host in both(bench):
        bench.write(host, "/srv/copied/data", "same")
    with bench.server("write=/srv/copied/data") as server:
        with stopped_at(bench, "CHECKED", server) as run:
            bench.write(bench.origin, "/srv/copied/data", "more")
            run.go()
            found = run.end()
        assert (found.status, found.report["outcome"]) == (4, "ROLLED_BACK")
        found.must_say("origin", "/srv/copied/data has changed since", "--copy-files")
        server.serves()


def test_what_is_written_until_the_freeze_is_copied(bench: InputBench) -> None:
    for host in both(bench):
        bench.write(host, "/srv/copied/data", "same")
    with bench.server("write=/srv/copied/data") as server:
        with stopped_at(bench, "CHECKED", server, "--copy-files") as run:
            bench.write(bench.origin, "/srv/copied/data", "more")
            run.go()
            found = run.end()
        try:
            assert found.status == 0, found
            assert bench.read(bench.destination, "/srv/copied/data") == "more"
            server.serves()
        finally:
            bench.end_there(found, server.address)


def test_mode_owner_and_times_are_kept(bench: InputBench) -> None:
    bench.write(bench.origin, "/srv/copied/deep/data", "x")
    bench.origin.exec(["chown", "-R", "1000:50", "/srv/copied"])
    bench.origin.exec(["chmod", "2750", "/srv/copied/deep"])
    bench.origin.exec(["chmod", "0604", "/srv/copied/deep/data"])
    bench.origin.exec(["touch", "-m", "-d", "2001-02-03 04:05:06.789", "/srv/copied/deep/data"])

    def look(host: Host) -> list[tuple[int, ...]]:
        paths = (host.root / "srv/copied/deep", host.root / "srv/copied/deep/data")
        status = [path.stat() for path in paths]
        found = [(stat.S_IMODE(one.st_mode), one.st_uid, one.st_gid) for one in status]
        return [*found, (status[1].st_mtime_ns,)]

    before = look(bench.origin)
    with bench.server("write=/srv/copied/deep/data") as server:
        bench.moved(server, "--copy-files", then=lambda: _same(look(bench.destination), before))


def _same(one: object, other: object) -> None:
    assert one == other


def test_another_mode_is_refused_before_the_freeze(bench: InputBench) -> None:
    for host, mode in zip(both(bench), ("0700", "0755"), strict=True):
        bench.write(host, "/srv/copied/cwd/data", "x")
        host.exec(["chmod", mode, "/srv/copied/cwd"])
    with bench.server("cwd=/srv/copied/cwd") as server:
        found = bench.refused(server)
    found.must_say("destination", "/srv/copied/cwd has the mode 0755 there and 0700", "chmod 0700")


def test_a_directory_that_it_works_in_is_not_emptied(bench: InputBench) -> None:
    """A server of files, say: it has none of them open. Also where something came into it since the check."""
    bench.origin.exec(["mkdir", "-p", "/srv/copied/www"])
    with bench.server("cwd=/srv/copied/www") as server:
        with stopped_at(bench, "CHECKED", server, "--copy-files") as run:
            bench.write(bench.origin, "/srv/copied/www/sub/index.html", "x")
            run.go()
            found = run.end()
        found.must_say("origin", "sub/index.html", "--copy-tree /srv/copied/www")
        assert found.report["outcome"] == "ROLLED_BACK"
        found = bench.refused(server, "--copy-files")
        assert found.codes == {("directory-emptied", "destination")}
        found.must_say("destination", "sub/index.html", "--copy-tree /srv/copied/www")

        def copied() -> None:
            assert bench.read(bench.destination, "/srv/copied/www/sub/index.html") == "x"

        bench.moved(server, "--copy-tree", "/srv/copied/www", then=copied)


def test_data_beside_the_open_file_is_not_left_behind(bench: InputBench) -> None:
    """Copied as a tree, with what was written meanwhile; what was there before is gone with it."""
    bench.write(bench.origin, "/srv/copied/db/log", "log")
    bench.write(bench.origin, "/srv/copied/db/sub/base", "base")
    bench.write(bench.destination, "/srv/copied/db/sub/stale", "stale")
    with bench.server("write=/srv/copied/db/log") as server:
        found = bench.refused(server, "--copy-files")
        assert found.codes == {("files-beside", "destination")}
        found.must_say("destination", "sub/base", "--copy-tree /srv/copied/db")
        tree = ("--copy-tree", "/srv/copied/db")

        def copied() -> None:
            assert bench.read(bench.destination, "/srv/copied/db/sub/base") == "base"
            assert bench.names(bench.destination, "/srv/copied/db/sub") == {"base"}
            assert bench.names(bench.destination, "/srv/copied") == {"db"}

        bench.moved(server, *tree, then=copied)


def test_a_tree_of_roots_in_a_users_directory(bench: InputBench) -> None:
    """Nothing of the one that was there stays behind."""
    for host in both(bench):
        bench.write(host, "/srv/copied/home/tree/log", "log")
        host.exec(["chown", "12345:12345", "/srv/copied/home"])
    with bench.server("write=/srv/copied/home/tree/log") as server:

        def copied() -> None:
            assert bench.names(bench.destination, "/srv/copied/home") == {"tree"}

        bench.moved(server, "--copy-tree", "/srv/copied/home/tree", then=copied)


def test_a_tree_comes_back_when_nothing_moves(bench: InputBench) -> None:
    bench.write(bench.origin, "/srv/copied/db/log", "log")
    bench.write(bench.destination, "/srv/copied/db/sub/stale", "stale")
    with bench.server("write=/srv/copied/db/log") as server:
        with stopped_at(bench, "DUMPED", server, "--copy-tree", "/srv/copied/db") as run:
            assert bench.read(bench.destination, "/srv/copied/db/log") == "log"
            run.terminate()
            found = run.end()
        assert found.report["outcome"] == "ROLLED_BACK"
        server.serves()
    assert bench.names(bench.destination, "/srv/copied/db") == {"sub"}
    assert bench.names(bench.destination, "/srv/copied") == {"db"}


def test_what_goes_with_the_tree_there_is_told(bench: InputBench) -> None:
    """By the check, and in the report."""
    bench.write(bench.origin, "/srv/copied/db/log", "log")
    for name in ("log", "sub/stale"):
        bench.write(bench.destination, f"/srv/copied/db/{name}", "its")
    told = (
        "1 file in /srv/copied/db on the destination is not in the one here, and goes with it when the process has"
        " moved: sub/stale"
    )
    with bench.server("write=/srv/copied/db/log") as server:
        checked = bench.migrate(server.pid, "destination", "--copy-tree", "/srv/copied/db", "--check")
        assert told in checked.report["notes"]
        assert bench.names(bench.destination, "/srv/copied/db") == {"log", "sub"}
        moved = bench.migrate(server.pid, "destination", "--copy-tree", "/srv/copied/db")
        try:
            assert (moved.status, told in moved.report["notes"]) == (0, True), moved
            assert bench.names(bench.destination, "/srv/copied/db") == {"log"}
        finally:
            bench.end_there(moved, server.address)


def test_an_open_database_is_not_copied(bench: InputBench) -> None:
    bench.origin.exec(["mkdir", "-p", "/srv/copied"])
    bench.origin.exec([sys.executable, "-c", SQLITE.format("/srv/copied/app.db")])
    with bench.server("write=/srv/copied/app.db") as server:
        found = bench.refused(server, "--copy-files")
    assert found.codes == {("open-database", "destination")}
    found.must_say("destination", "/srv/copied/app.db is an open SQLite database", "storage that both hosts")


def test_a_lease_is_not_broken(bench: InputBench) -> None:
    bench.write(bench.origin, "/srv/copied/leased", "x")
    code = (
        "import fcntl, os, signal; f = os.open('/srv/copied/leased', os.O_RDWR); fcntl.fcntl(f, fcntl.F_SETLEASE,"
        " fcntl.F_WRLCK); open('/srv/copied/ready', 'w'); signal.pause()"
    )
    with bench.program(bench.origin, sys.executable, "-c", code) as pid:
        eventually(lambda: "ready" in bench.names(bench.origin, "/srv/copied"), "a lease")
        found = bench.migrate(pid, "destination", "--copy-files")
        assert ("lease", "origin") in found.codes, found.said
        assert bench.origin.exec(["kill", "-0", str(pid)], check=False).returncode == 0


def test_a_named_pipe_that_others_have_open(bench: InputBench) -> None:
    for host in both(bench):
        host.exec(["sh", "-c", "mkdir -p /srv/copied && mkfifo /srv/copied/fifo"])
    with (
        bench.program(bench.origin, "sh", "-c", "exec 3<>/srv/copied/fifo; sleep 1000"),
        bench.server("read=/srv/copied/fifo") as server,
    ):
        found = bench.refused(server)
    found.must_say("origin", "named pipe", "/srv/copied/fifo, sh (PID")


def test_a_lock_that_is_held_there(bench: InputBench) -> None:
    for host in both(bench):
        bench.write(host, "/srv/copied/lock", "")
    code = (
        "import fcntl, sys, time; f = open('/srv/copied/lock', 'r+b'); fcntl.flock(f, fcntl.LOCK_EX);"
        "open('/srv/copied/ready', 'w'); time.sleep(1000)"
    )
    with (
        bench.program(bench.destination, sys.executable, "-c", code),
        bench.program(bench.origin, sys.executable, "-c", code) as pid,
    ):
        for host in both(bench):
            eventually(lambda host=host: "ready" in bench.names(host, "/srv/copied"), "a lock")
        found = bench.migrate(pid, "destination")
    assert ("lock-taken", "destination") in found.codes
    found.must_say("destination", "/srv/copied/lock", "is locked there by python")


def test_the_directory_of_a_unix_socket_is_made(bench: InputBench) -> None:
    bench.origin.exec(
        ["sh", "-c", "mkdir -p /run/copied/app; cd /run/copied; chmod 0711 app; chown 1000 app"]
    )
    with bench.server("unixserver=/run/copied/app/app.sock") as server:
        found = bench.refused(server)
        assert found.codes == {("no-directory", "destination")}

        def made() -> None:
            status = (bench.destination.root / "run/copied/app").stat()
            assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o711, 1000)
            assert bench.names(bench.destination, "/run/copied/app") == {"app.sock"}

        bench.moved(server, "--copy-files", then=made)


@pytest.mark.parametrize("path", ["/run/copied/app.sock", "@copied"])
def test_a_name_of_a_unix_socket_that_is_taken_there(bench: InputBench, path: str) -> None:
    for host in both(bench):
        host.exec(["mkdir", "-p", "/run/copied"])
    port = bench.free_port()
    with (
        bench.odd(bench.destination, f"127.0.0.1:{port}", f"unixserver={path}"),
        bench.server(f"unixserver={path}") as server,
    ):
        found = bench.refused(server)
        shown = bench.destination.exec(["ss", "-xlH"]).stdout
    assert found.codes == {("unix-name-taken" if path.startswith("@") else "unix-path-taken", "destination")}
    found.must_say("destination", path, "python")
    assert path in shown


def test_a_udp_port_that_is_taken_there(bench: InputBench) -> None:
    code = (
        "import socket, time; s = socket.socket(2, 2); s.bind(('0.0.0.0', 5353)); print(1); time.sleep(1000)"
    )
    with (
        bench.program(bench.destination, sys.executable, "-c", code) as other,
        bench.program(bench.origin, sys.executable, "-c", code) as pid,
    ):
        for host in both(bench):
            eventually(lambda host=host: "5353" in host.exec(["ss", "-ulnH"]).stdout, "UDP")
        found = bench.migrate(pid, "destination")
    found.must_say("destination", "UDP port 5353 is taken by python", f"(PID {other})")


def test_words_of_the_report_are_json(bench: InputBench) -> None:
    """A file of an odd name in the refusal breaks no line."""
    bench.write(bench.origin, '/srv/copied/a "b\\', "x")
    with bench.server('write=/srv/copied/a "b\\') as server:
        found = bench.refused(server)
    assert json.dumps(found.report) and ("no-file", "destination") in found.codes


def test_what_is_not_cleaned_up_there_is_told(bench: InputBench) -> None:
    """What was mounted in the directory that was replaced, after the check: it stays, and a note says so."""
    bench.write(bench.origin, "/srv/copied/own/data", "ours")
    bench.write(bench.destination, "/srv/copied/own/volume/its", "its")
    with bench.server("write=/srv/copied/own/data") as server:
        with stopped_at(
            bench, "RESTORED", server, "--copy-tree", "/srv/copied/own", "--max-gap", "20"
        ) as run:
            script = "cd /srv/copied/.migrate-*/volume && mount -t tmpfs none . && touch ../volume/precious"
            bench.destination.exec(["sh", "-c", script])
            run.go()
            found = run.end()
        try:
            assert (found.status, found.report["outcome"]) == (0, "MOVED"), found
            assert any("mounted" in note for note in found.report["notes"]), found.report["notes"]
        finally:
            bench.destination.exec(["sh", "-c", "umount /srv/copied/.migrate-*/volume"])
            bench.end_there(found, server.address)
    assert bench.destination.exec(["migrate", "--recover"], check=False).returncode == 0
    assert bench.names(bench.destination, "/srv/copied") == {"own"}


@pytest.mark.parametrize("option", [["--copy-files"], ["--copy-tree", "/srv/copied/full/db"]])
def test_no_room_there(bench: InputBench, option: list[str]) -> None:
    """It is known before the freeze, also when the room that was there at the check is gone when it is needed."""
    bench.origin.exec(["mkdir", "-p", "/srv/copied/full/db"])
    bench.origin.exec(["sh", "-c", "head -c 3000000 /dev/urandom >/srv/copied/full/db/data"])
    mount = "mkdir -p /srv/copied/full && mount -t tmpfs -o {} none /srv/copied/full"
    with bench.server("write=/srv/copied/full/db/data") as server:
        for words, code in (("size=1m", "no-file-space"), ("nr_inodes=1", "no-inodes")):
            bench.destination.exec(["sh", "-c", mount.format(words)])
            try:
                found = bench.refused(server, *option)
                assert found.codes == {(code, "destination")}
                found.must_say("destination", "/srv/copied/full", "free")
            finally:
                bench.destination.exec(["umount", "/srv/copied/full"])


def test_a_file_that_is_mostly_empty_stays_so(bench: InputBench) -> None:
    script = "mkdir -p /srv/copied && truncate -s 100M /srv/copied/image && echo x >>/srv/copied/image"
    bench.origin.exec(["sh", "-c", script])

    def look() -> None:
        status = (bench.destination.root / "srv/copied/image").stat()
        assert (status.st_size, status.st_blocks * 512 < 1 << 20) == ((100 << 20) + 2, True)
        assert bench.destination.exec(["tail", "-c", "2", "/srv/copied/image"]).stdout == "x\n"

    with bench.server("write=/srv/copied/image") as server:
        found = bench.moved(server, "--copy-files", then=look)
    # It is read as a whole, and how far that is gets told, while it is copied.
    assert next(one["bytes_sent"] for one in found.events if one["event"] == "progress") >= 64 << 20


def test_only_mode_owner_and_times_change(bench: InputBench) -> None:
    """Between check and freeze; a mode that differs would be an error of CRIU's."""
    bench.write(bench.origin, "/srv/copied/own/data", "x")

    def look(host: Host) -> tuple[int, ...]:
        status = (host.root / "srv/copied/own/data").stat()
        return stat.S_IMODE(status.st_mode), status.st_uid, status.st_mtime_ns

    with bench.server("write=/srv/copied/own/data") as server:
        with stopped_at(bench, "CHECKED", server, "--copy-files") as run:
            script = "cd /srv/copied/own && chown 1000 data && chmod 0604 data && touch -d 2001-02-03 data"
            bench.origin.exec(["sh", "-c", script])
            run.go()
            found = run.end()
        try:
            assert (found.status, found.report["outcome"]) == (0, "MOVED"), found
            assert look(bench.destination) == look(bench.origin)
            server.serves()
        finally:
            bench.end_there(found, server.address)


def test_one_file_by_two_names(bench: InputBench) -> None:
    """It would become two: refused, and --copy-tree keeps it one."""
    bench.write(bench.origin, "/srv/copied/own/one", "x")
    bench.origin.exec(["ln", "/srv/copied/own/one", "/srv/copied/own/two"])
    with bench.server("write=/srv/copied/own/one", "write=/srv/copied/own/two") as server:
        found = bench.refused(server, "--copy-files")
        assert found.codes == {("hard-links", "destination")}
        found.must_say(
            "destination", "/srv/copied/own/one, /srv/copied/own/two", "--copy-tree /srv/copied/own"
        )

        def one() -> None:
            there = bench.destination.root / "srv/copied/own"
            assert (there / "one").samefile(there / "two")

        bench.moved(server, "--copy-tree", "/srv/copied/own", then=one)


def test_two_files_there_that_are_one_here(bench: InputBench) -> None:
    for host in both(bench):
        bench.write(host, "/srv/copied/one", "same")
    bench.origin.exec(["ln", "/srv/copied/one", "/srv/copied/two"])
    bench.write(bench.destination, "/srv/copied/two", "same")
    with bench.server("write=/srv/copied/one", "write=/srv/copied/two") as server:
        assert bench.refused(server).codes == {("hard-links", "destination")}
        bench.destination.exec(["ln", "-f", "/srv/copied/one", "/srv/copied/two"])
        bench.moved(server)
