"""Commands in machines behave as in the lab of namespaces: streams, ends, signals; and a lab leaves nothing."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from harness.wait import eventually

from migrate.lab import LabError, remedies, topology
from migrate.lab.vm.lab import VmLab


def migrate_lab(lab: VmLab, *words: str, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "migrate.lab", "--vm", "--name", lab.name, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)  # type: ignore[call-overload,no-any-return]


def test_status_is_the_contract_of_the_other_lab(lab: VmLab) -> None:
    done = migrate_lab(lab, "status", "--json")
    status = json.loads(done.stdout)
    assert (done.returncode, status["up"]) == (0, True)
    assert status["hosts"]["destination"]["ipv4"] == "10.77.1.2"
    assert status["service"] == {"ipv4": "10.77.1.100", "ipv6": "fd77:1::100"}
    for name in ("origin", "destination"):
        assert (
            status["hosts"][name]["machine"]["kernel"] == lab.hosts[name].exec(["uname", "-r"]).stdout.strip()
        )


def test_streams_and_exit_status(lab: VmLab) -> None:
    host = lab.hosts["peer"]
    done = host.exec(["sh", "-c", "cat; echo bad >&2; exit 7"], input="given\n", check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("given\n", "bad\n", 7)
    assert migrate_lab(lab, "exec", "neighbour", "--", "hostname").stdout == "peer\n"
    assert migrate_lab(lab, "exec", "peer", "--", "no-such-program").returncode == 127
    assert migrate_lab(lab, "exec", "peer", "--", "/etc/hostname").returncode == 126
    assert migrate_lab(lab, "shell", "gateway", input="hostname; exit 3\n").returncode == 3


def test_much_data_both_ways(lab: VmLab) -> None:
    data = os.urandom(4_000_000)
    with lab.hosts["peer"].popen(
        ["sh", "-c", "tee /dev/stderr"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as run:
        out, errors = run.communicate(data, timeout=120)
    digests = {hashlib.sha256(one).hexdigest() for one in (data, out, errors)}
    assert len(digests) == 1


def test_a_signal_is_passed_on_and_an_end_by_one_told(lab: VmLab) -> None:
    run = lab.hosts["peer"].popen(["sleep", "1000"])
    eventually(lambda: lab.hosts["peer"].exec(["pgrep", "-x", "sleep"], check=False).stdout, "it sleeps")
    run.terminate()
    assert run.wait(60) == -signal.SIGTERM


def test_a_caller_that_is_killed_takes_the_command_along(lab: VmLab) -> None:
    host = lab.hosts["peer"]
    run = host.popen(["sleep", "1001"])
    eventually(lambda: host.exec(["pgrep", "-f", "^sleep 1001"], check=False).stdout, "it sleeps")
    run.kill()
    run.wait(60)
    eventually(lambda: not host.exec(["pgrep", "-f", "^sleep 1001"], check=False).stdout, "it is gone")


def test_spawn(lab: VmLab) -> None:
    host = lab.hosts["gateway"]
    pid = host.spawn(["sh", "-c", "echo $$; exec sleep 1000"], log="/tmp/log")
    eventually(lambda: host.exec(["cat", "/tmp/log"]).stdout == f"{pid}\n", "it wrote its PID")
    ids = host.exec(["ps", "-o", "ppid=,sid=,pgid=", "-p", str(pid)]).stdout.split()
    assert ids == ["1", str(pid), str(pid)]
    host.exec(["kill", str(pid)])
    eventually(lambda: host.exec(["ps", "-p", str(pid)], check=False).returncode, "it is reaped")
    done = migrate_lab(lab, "spawn", "gateway", "--log", "/no/dir", "--", "sleep", "1000")
    wanted = "migrate-lab: cannot write its output to /no/dir: No such file or directory\n"
    assert (done.returncode, done.stderr) == (125, wanted)
    with pytest.raises(LabError, match="no-such-program"):
        host.spawn(["no-such-program"])


def test_nothing_of_the_control_is_seen_in_a_machine(lab: VmLab) -> None:
    names = lab.hosts["peer"].exec(["ls", "/sys/class/net"]).stdout.split()
    assert sorted(names) == ["eth0", "eth1", "lo"]
    assert "192.0.2." not in lab.hosts["peer"].exec(["ip", "address"]).stdout


def test_this_machine_has_nothing_of_the_lab(lab: VmLab) -> None:
    """No interface and no mount; and QEMU is in the segment's PID namespace, whose end is its end."""
    links = json.loads(subprocess.run(["ip", "-json", "link"], capture_output=True, check=True).stdout)
    assert not {str(one["ifname"]) for one in links} & {"origin0", "origin-ctl", "control", "servers"}
    assert lab.name not in Path("/proc/self/mountinfo").read_text()
    space = lab.hosts["segment"].host_pid(1)
    inside = Path(f"/proc/{space}/ns/pid").readlink()
    own = [
        path
        for path in Path("/proc").glob("[0-9]*")
        if b"qemu-system" in _words(path) and inside == _link(path / "ns/pid")
    ]
    assert len(own) == 4


def _words(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


def _link(path: Path) -> Path | None:
    try:
        return path.readlink()
    except OSError:
        return None


def boots(lab: VmLab) -> dict[str, str]:
    """Which boot of its each machine is in."""
    command = ["cat", "/proc/sys/kernel/random/boot_id"]
    return {name: lab.hosts[name].exec(command).stdout for name in topology.HOSTS}


def test_up_starts_the_machine_that_is_off_and_no_other(lab: VmLab) -> None:
    before = boots(lab)
    lab.power_off("peer")
    status = migrate_lab(lab, "status")
    assert (status.returncode, status.stdout.splitlines()[0]) == (
        1,
        f"lab {lab.name!r} is up in part: peer is off: `migrate-lab --vm --name {lab.name} up` starts what is off",
    )
    assert [line.split()[-1] for line in status.stdout.splitlines() if line.startswith("peer")] == ["off"]
    for words in (["exec"], ["spawn"]):
        done = migrate_lab(lab, *words, "neighbour", "--", "true")
        assert (done.returncode, done.stderr) == (
            125,
            f"migrate-lab: peer is off: migrate-lab --vm --name {lab.name} power peer on starts it\n",
        )
    up = migrate_lab(lab, "up")
    assert (up.returncode, up.stderr) == (0, "")
    after = boots(lab)
    assert [name for name in before if before[name] != after[name]] == ["peer"]
    assert "was up already" in migrate_lab(lab, "up").stderr


def test_machines_that_are_switched_on_at_once(lab: VmLab) -> None:
    """The same one twice, and another: each runs once, and can be switched off."""
    names = ("peer", "peer", "gateway")
    for name in set(names):
        lab.power_off(name)
    words = [sys.executable, "-m", "migrate.lab", "--vm", "--name", lab.name, "power"]
    runs = [subprocess.Popen([*words, name, "on"], stderr=subprocess.PIPE, text=True) for name in names]
    said = [(run.communicate(timeout=240)[1], run.returncode) for run in runs]
    assert said == [("", 0)] * len(names)
    assert lab.off() == []
    lab.power_off("peer")
    assert lab.off() == ["peer"]
    lab.power_on("peer")


def test_a_power_on_that_is_killed_loses_no_machine(lab: VmLab) -> None:
    """As soon as QEMU runs: it is seen to run, and can be switched off, and on again."""
    lab.power_off("peer")
    words = [sys.executable, "-m", "migrate.lab", "--vm", "--name", lab.name, "power", "peer", "on"]
    with subprocess.Popen(words) as switching:
        eventually(lambda: lab.off() == [], "QEMU runs", pause_s=0.001)
        switching.kill()
    assert lab.off() == []
    lab.power_off("peer")
    assert lab.off() == ["peer"]
    lab.power_on("peer")
    assert lab.hosts["peer"].exec(["true"]).returncode == 0


def test_whoever_serves_commands_may_be_killed(lab: VmLab) -> None:
    """Another one goes on, in the same boot; the command that ran is the one that is lost."""
    before = boots(lab)
    killed = migrate_lab(lab, "exec", "peer", "--", "killall", "-9", "python3")
    assert (killed.returncode, killed.stderr) == (125, "migrate-lab: the machine ended the connection\n")
    assert migrate_lab(lab, "exec", "peer", "--", "hostname").stdout == "peer\n"
    assert boots(lab) == before
    lab.hosts["peer"].exec(["sh", "-c", "kill 1; kill -INT 1; kill -HUP 1"])
    assert boots(lab) == before


def test_a_machine_whose_kernel_has_stopped(lab: VmLab) -> None:
    """Nothing waits for it; all say so, and what helps."""
    panic = "sysctl -q kernel.sysrq=1; (sleep 1; echo c > /proc/sysrq-trigger) < /dev/null > /dev/null 2>&1 &"
    lab.hosts["peer"].exec(["sh", "-c", panic])
    eventually(lambda: lab.machines.silent(["peer"]), "it has stopped")
    helps = f"{remedies.boots_anew(lab.name, 'peer')}\n"
    status = migrate_lab(lab, "status")
    sentence = f"its kernel has stopped, as its console says; {helps}"
    assert (status.returncode, f"peer does not answer: {sentence}" in status.stdout) == (1, True)
    for status_of, words in (
        (1, ["up"]),
        (1, ["power", "peer", "on"]),
        (125, ["exec", "peer", "--", "true"]),
    ):
        done = migrate_lab(lab, *words)
        assert (done.returncode, sentence in done.stderr) == (status_of, True), done.stderr
        assert sentence.rstrip() in done.stderr.splitlines()[0]
    lab.power_off("peer")
    lab.power_on("peer")
    assert migrate_lab(lab, "status").returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_what_a_machine_that_stands_still_runs(lab: VmLab, number: signal.Signals) -> None:
    """In a moment, with a word; once the machine goes on the command is gone, too."""
    words = ["--vm", "--name", lab.name, "exec", "peer", "--", "sleep", f"100{number}"]
    ask = ["pgrep", "-fx", f"sleep 100{number}"]
    segment, peer = lab.hosts["segment"], lab.hosts["peer"]
    qemu = segment.exec(["pgrep", "-f", "^[^ ]*qemu-system-[^ ]* -name peer "]).stdout.strip()
    with subprocess.Popen(
        [sys.executable, "-m", "migrate.lab", *words], stderr=subprocess.PIPE, text=True
    ) as run:
        eventually(lambda: peer.exec(ask, check=False).stdout, "it sleeps")
        segment.exec(["kill", "-STOP", qemu])
        try:
            run.send_signal(number)
            said = run.communicate(timeout=15)[1]
        finally:
            segment.exec(["kill", "-CONT", qemu])
    helps = remedies.of_silent(lab.name, "peer", stopped=False)
    assert said == f"migrate-lab: ended by {number.name}, since the machine does not answer: {helps}\n"
    assert run.returncode == -number
    eventually(lambda: not peer.exec(ask, check=False).stdout, "it is gone")


def test_a_command_ends_with_its_machine(lab: VmLab) -> None:
    """At once: the network does not tell, and a silent machine is waited for for half a minute."""
    run = lab.hosts["peer"].popen(["sleep", "1002"], stderr=subprocess.PIPE, text=True)
    eventually(
        lambda: lab.hosts["peer"].exec(["pgrep", "-f", "^sleep 1002"], check=False).stdout, "it sleeps"
    )
    lab.power_off("peer")
    said = run.communicate(timeout=15)[1]
    assert (run.returncode, said) == (
        125,
        "migrate-lab: the machine has ended: its power was cut, or it switched itself off\n",
    )
    other = migrate_lab(lab, "--kernel", "peer=6.1", "up")
    assert other.returncode == 1
    assert f"lab {lab.name!r} differs from what is asked for: peer has the kernel 6.12." in other.stderr
    assert lab.off() == ["peer"]
    up = migrate_lab(lab, "--kernel", "peer=6.12", "up")
    assert (up.returncode, up.stderr) == (
        0,
        f"lab {lab.name!r} was up in part, and every machine is as it was made\n",
    )


@pytest.mark.usefixtures("lab")
def test_an_up_that_is_killed_leaves_no_machine() -> None:
    """Also the next ``down`` finds and removes the little that is left."""
    name = f"killed-{os.getpid()}"
    lab = VmLab(name)
    up = subprocess.Popen([sys.executable, "-m", "migrate.lab", "--vm", "--name", name, "up"])
    mine = b"/run/vm/peer/console"
    inits = f"hold\0segment\0{name}\0".encode()

    def init() -> list[Path]:
        return [path for path in Path("/proc").glob("[0-9]*") if _words(path).endswith(inits)]

    def machines() -> list[Path]:
        spaces = {_link(path / "ns/pid") for path in found}
        running = [path for path in Path("/proc").glob("[0-9]*") if mine in _words(path)]
        return [path for path in running if _link(path / "ns/pid") in spaces]

    found: list[Path] = []
    try:
        found = eventually(init, "its segment lives")
        found_machines = eventually(machines, "a machine runs")
        up.kill()
        up.wait(60)
        eventually(lambda: not init(), "its segment has ended")
        # The kernel takes the init's memory, and with it its words, before it kills who is left in the namespace.
        eventually(lambda: not [path for path in found_machines if mine in _words(path)], "its machines too")
    finally:
        up.kill()
        up.wait(60)
        lab.down()
    assert not lab.directory.exists()
