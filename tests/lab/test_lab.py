"""The lab itself. The judges are the kernel's own tables, ``ip``, ssh and bash, not the lab's code."""

import ctypes
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from migrate.lab import Lab, LabError
from migrate.lab.cli import main

HOSTS = ("origin", "destination", "gateway", "peer")
ADDRESSES = (
    ("10.77.1.1", "fd77:1::1"),
    ("10.77.1.2", "fd77:1::2"),
    ("10.77.1.254", "fd77:1::fe"),
    ("10.77.2.254", "fd77:2::fe"),
    ("10.77.2.1", "fd77:2::1"),
    ("10.77.1.3", "fd77:1::3"),
)
DEADLINE_S = 15.0
PR_SET_CHILD_SUBREAPER = 36


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Wait until *condition* holds."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {DEADLINE_S} s: {what}"
        time.sleep(0.01)


def command(name: str, *words: str) -> list[str]:
    return [sys.executable, "-m", "migrate.lab", "--name", name, *words]


def migrate_lab(name: str, *words: str, **options: object) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    return subprocess.run(command(name, *words), capture_output=True, text=True, timeout=60, **options)  # type: ignore[call-overload,no-any-return]


def processes_of(name: str) -> list[int]:
    """PIDs of the inits of lab *name*, and of everything that is in a namespace of one of them."""
    everything = [path for path in Path("/proc").iterdir() if path.name.isdigit()]
    inits = [path for path in everything if is_init_of(name, path)]
    spaces = {space for init in inits for space in namespaces(init)} - namespaces(Path("/proc/self"))
    return [int(path.name) for path in everything if path in inits or spaces & namespaces(path)]


def is_init_of(name: str, process: Path) -> bool:
    words = read(process / "cmdline").decode(errors="replace").split("\0")[:-1]
    return len(words) > 4 and words[3].endswith("/init.py") and words[-1] == name


def namespaces(process: Path) -> set[str]:
    return {found for kind in ("pid", "net", "mnt") if (found := link(process / "ns" / kind))}


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def link(path: Path) -> str | None:
    try:
        return str(path.readlink())
    except OSError:
        return None


def machine() -> tuple[str, list[str]]:
    """What the lab must leave alone: the machine's mounts and interfaces."""
    links = json.loads(subprocess.run(["ip", "-json", "link"], capture_output=True, check=True).stdout)
    return Path("/proc/self/mountinfo").read_text(), sorted(str(each["ifname"]) for each in links)


def assert_nothing_left(name: str) -> None:
    assert not Path("/run/migrate-lab", name).exists()
    assert processes_of(name) == []


@pytest.fixture
def name(request: pytest.FixtureRequest) -> Iterator[str]:
    """Name of a lab that is not up; it is taken down afterwards."""
    name = f"t{os.getpid()}-{abs(hash(request.node.name)) % 10000}"
    yield name
    Lab(name).down()


def test_down_leaves_nothing(name: str) -> None:
    before = machine()
    assert migrate_lab(name, "up").returncode == 0
    assert machine() == before
    assert migrate_lab(name, "spawn", "peer", "--", "sleep", "1000").returncode == 0
    assert len(processes_of(name)) == 5 + 4 + 1  # Inits, sshds, the sleep.
    assert migrate_lab(name, "down").returncode == 0
    assert_nothing_left(name)
    assert machine() == before
    assert migrate_lab(name, "down").returncode == 0


def test_up_twice_changes_nothing(lab: Lab) -> None:
    before = lab.status()
    again = migrate_lab(lab.name, "up")
    assert again.returncode == 0
    assert "already" in again.stderr
    assert lab.status() == before


def test_status_is_the_contract(lab: Lab) -> None:
    done = migrate_lab(lab.name, "status", "--json")
    status = json.loads(done.stdout)
    assert done.returncode == 0
    assert set(HOSTS) <= set(status["hosts"])
    assert status["hosts"]["destination"]["ipv4"] == "10.77.1.2"
    assert status["hosts"]["destination"]["ipv6"] == "fd77:1::2"
    assert status["service"] == {"ipv4": "10.77.1.100", "ipv6": "fd77:1::100"}


def test_status_of_a_lab_that_is_down(name: str) -> None:
    done = migrate_lab(name, "status", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["up"] is False
    assert migrate_lab(name, "exec", "origin", "--", "true").returncode == 125


@pytest.mark.parametrize("delay_ms", [60, 150, 250, 300, 350, 400, 450, 500, 550, 600, 700])
def test_up_killed_in_its_middle(name: str, delay_ms: int) -> None:
    up = subprocess.Popen(command(name, "up"), stdout=subprocess.DEVNULL)
    time.sleep(delay_ms / 1000)  # The moment of the kill is what is tested.
    up.kill()
    up.wait()
    if not Lab(name).is_up():
        wait_for(lambda: processes_of(name) == [] or saved(name), "its hosts end by themselves")
    assert migrate_lab(name, "up").returncode == 0
    assert migrate_lab(name, "exec", "origin", "--", "ssh", "peer", "true").returncode == 0
    assert len(processes_of(name)) == 5 + 4
    assert migrate_lab(name, "down").returncode == 0
    assert_nothing_left(name)


def saved(name: str) -> bool:
    """Whether the state was written: from then on hosts may live on without *up*."""
    return Path("/run/migrate-lab", name, "state.json").exists()


@pytest.mark.parametrize("host", [*HOSTS, "segment"])
def test_up_after_an_init_was_killed(name: str, host: str) -> None:
    lab = Lab(name)
    assert lab.up()
    os.kill(lab.hosts[host].init.pid, signal.SIGKILL)
    wait_for(lambda: not lab.is_up(), "the init is gone")
    with pytest.raises(LabError, match="not up"):
        lab.hosts[host].exec(["true"])
    assert lab.up()
    assert len(processes_of(name)) == 5 + 4
    lab.down()
    assert_nothing_left(name)


def test_init_ends_on_sigterm(name: str) -> None:
    lab = Lab(name)
    lab.up()
    os.kill(lab.hosts["peer"].init.pid, signal.SIGTERM)
    wait_for(lambda: not lab.is_up(), "the init is gone")


def test_many_at_once(name: str) -> None:
    verbs = ["up", "up", "down", "up", "down", "up"]
    runs = [subprocess.Popen(command(name, verb), stdout=subprocess.DEVNULL) for verb in verbs]
    # Whether the status printed after "up" finds the lab up depends on the downs beside it.
    assert all(
        run.wait(60) in ((0, 1) if verb == "up" else (0,)) for verb, run in zip(verbs, runs, strict=True)
    )
    assert migrate_lab(name, "up").returncode == 0
    assert len(processes_of(name)) == 5 + 4
    assert migrate_lab(name, "down").returncode == 0
    assert_nothing_left(name)


def test_state_of_a_foreign_process_is_not_killed(name: str) -> None:
    bystander = subprocess.Popen(["sleep", "1000"])
    try:
        run = Path("/run/migrate-lab", name)
        run.mkdir(parents=True)
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        inits = {"origin": [bystander.pid, 12345]}
        (run / "state.json").write_text(json.dumps({"boot": boot, "inits": inits}))
        assert migrate_lab(name, "down").returncode == 0
        assert bystander.poll() is None
        assert_nothing_left(name)
    finally:
        bystander.kill()
        bystander.wait()


@pytest.mark.parametrize("state", ["", "{", "[]", '{"boot": 1}', '{"boot": "x", "inits": {}}', "null"])
def test_broken_state_is_replaced(name: str, state: str) -> None:
    run = Path("/run/migrate-lab", name)
    (run / "origin").mkdir(parents=True)
    (run / "state.json").write_text(state)
    assert migrate_lab(name, "status").returncode == 1
    assert migrate_lab(name, "up").returncode == 0


def test_two_labs_side_by_side(lab: Lab, name: str) -> None:
    with Lab(name) as other:
        other.hosts["origin"].exec(["sh", "-c", "echo other > /root/mine"])
        assert lab.hosts["origin"].exec(["test", "-e", "/root/mine"], check=False).returncode == 1
        for each in (lab, other):
            each.hosts["peer"].exec(["ssh", "origin", "true"])
        assert other.hosts["destination"].exec(["ssh", "origin", "cat", "mine"]).stdout == "other\n"
    lab.hosts["peer"].exec(["ssh", "origin", "true"])
    assert_nothing_left(name)


@pytest.mark.parametrize("bad", ["", "..", "a/b", "A", "x" * 33, "a b", "lab\n"])
def test_names_that_are_refused(bad: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--name", bad, "up"]) == 1
    assert "not a lab's name" in capsys.readouterr().err


@pytest.mark.parametrize(
    "directory", ["/root", "/etc", "/tmp", "/run", "/dev/shm", "/var/tmp", "/usr/local/bin"]
)
def test_files_are_private(lab: Lab, directory: str) -> None:
    path = f"{directory}/private-{os.getpid()}"
    lab.hosts["origin"].exec(["sh", "-c", f"echo x > {path}"])
    for host in ("destination", "gateway", "peer", "segment"):
        assert lab.hosts[host].exec(["test", "-e", path], check=False).returncode == 1
    assert not Path(path).exists()
    lab.hosts["origin"].exec(["rm", path])


def test_the_machines_keys_are_not_seen(lab: Lab) -> None:
    listed = lab.hosts["origin"].exec(["ls", "-A", "/root/.ssh"]).stdout.split()
    assert listed == ["authorized_keys", "id_ed25519", "id_ed25519.pub", "known_hosts"]
    listed = lab.hosts["origin"].exec(["ls", "-A", "/etc/ssh"]).stdout.split()
    assert listed == ["ssh_config", "ssh_host_ed25519_key", "ssh_host_ed25519_key.pub", "sshd_config"]
    hosts_keys = {lab.hosts[host].exec(["cat", "/etc/ssh/ssh_host_ed25519_key"]).stdout for host in HOSTS}
    assert len(hosts_keys) == len(HOSTS)
    assert read(Path("/etc/ssh/ssh_host_ed25519_key")).decode() not in hosts_keys


def test_own_name_and_namespaces(lab: Lab) -> None:
    kinds = ("mnt", "net", "pid", "uts", "ipc")
    seen = [os.readlink(f"/proc/self/ns/{kind}") for kind in kinds]  # noqa: PTH115
    for host in HOSTS:
        assert lab.hosts[host].exec(["hostname"]).stdout.strip() == host
        script = "".join(f"readlink /proc/self/ns/{kind};" for kind in kinds)
        seen += lab.hosts[host].exec(["sh", "-c", script]).stdout.split()
    assert len(set(seen)) == len(kinds) * (len(HOSTS) + 1)


@pytest.mark.parametrize("host", HOSTS)
def test_names_resolve(lab: Lab, host: str) -> None:
    expected = {"origin": ADDRESSES[0], "destination": ADDRESSES[1], "peer": ADDRESSES[4]}
    expected |= {"neighbour": ADDRESSES[5], "service": ("10.77.1.100", "fd77:1::100")}
    for name, (ipv4, ipv6) in expected.items():
        for database, address in (("ahostsv4", ipv4), ("ahostsv6", ipv6)):
            found = lab.hosts[host].exec(["getent", database, name]).stdout
            assert found.split()[0] == address


@pytest.mark.parametrize("host", HOSTS)
def test_every_address_is_reached(lab: Lab, host: str) -> None:
    texts = list(itertools.chain.from_iterable(ADDRESSES))
    script = "for a; do exec 3<>/dev/tcp/$a/22 && head -c 4 <&3; done"
    done = lab.hosts[host].exec(["timeout", "10", "bash", "-c", script, "bash", *texts])
    assert done.stdout == "SSH-" * len(texts)


@pytest.mark.parametrize("host", HOSTS)
def test_ssh_works_to_each(lab: Lab, host: str) -> None:
    wanted = {"origin": "origin", "destination": "destination", "gateway": "gateway", "peer": "peer"}
    wanted |= {"neighbour": "peer", "10.77.1.1": "origin", "fd77:2::1": "peer"}
    for name, hostname in wanted.items():
        done = lab.hosts[host].exec(["ssh", name, "hostname"])
        assert (done.stdout, done.stderr) == (f"{hostname}\n", "")


def test_sshd_is_not_on_the_service_address(lab: Lab) -> None:
    for address in lab.service:
        listening = f"exec 3<>/dev/tcp/{address}/22"
        assert lab.hosts["peer"].exec(["bash", "-c", listening], check=False).returncode == 1


def test_service_addresses_are_origins_and_not_its_source(lab: Lab) -> None:
    shown = json.loads(lab.hosts["origin"].exec(["ip", "-json", "addr", "show", "eth0"]).stdout)[0][
        "addr_info"
    ]
    assert {(a["local"], a["prefixlen"]) for a in shown} >= {("10.77.1.100", 24), ("fd77:1::100", 64)}
    for target, source in (
        ("10.77.2.1", "10.77.1.1"),
        ("fd77:2::1", "fd77:1::1"),
        ("fd77:1::2", "fd77:1::1"),
    ):
        (route,) = json.loads(lab.hosts["origin"].exec(["ip", "-json", "route", "get", target]).stdout)
        assert route["prefsrc"] == source


CONNECT_WITH_TTL_1 = """
import socket, sys
source, target = sys.argv[1:]
family = socket.AF_INET6 if ":" in target else socket.AF_INET
with socket.socket(family) as s:
    s.settimeout(3)
    level, option = (41, socket.IPV6_UNICAST_HOPS) if family == socket.AF_INET6 else (0, socket.IP_TTL)
    s.setsockopt(level, option, 1)
    if source:
        s.bind((source, 0))
    try:
        s.connect((target, 22))
    except OSError:
        print("lost")
    else:
        print(s.getsockname()[0])
"""


@pytest.mark.parametrize(
    ("source", "target", "outcome"),
    [
        ("", "10.77.2.254", "10.77.2.1"),
        ("", "10.77.1.1", "lost"),
        ("", "fd77:1::1", "lost"),
        ("10.77.1.3", "10.77.1.1", "10.77.1.3"),
        ("fd77:1::3", "fd77:1::1", "fd77:1::3"),
    ],
)
def test_peer_by_the_gateway_neighbour_directly(lab: Lab, source: str, target: str, outcome: str) -> None:
    """A packet with one hop to live reaches the servers segment only from the second leg."""
    done = lab.hosts["neighbour"].exec(["python3", "-c", CONNECT_WITH_TTL_1, source, target])
    assert done.stdout.strip() == outcome


def test_peer_answers_arp_for_an_interfaces_own_addresses_only(lab: Lab) -> None:
    """Nobody on the servers segment learns 10.77.2.1 from the second leg."""
    lab.hosts["origin"].exec(["ip", "route", "add", "10.77.2.1/32", "dev", "eth0"])
    try:
        script = "exec 3<>/dev/tcp/10.77.2.1/22"
        assert lab.hosts["origin"].exec(["bash", "-c", script], check=False).returncode == 1
    finally:
        lab.hosts["origin"].exec(["ip", "route", "del", "10.77.2.1/32", "dev", "eth0"])


def test_segment_sees_the_packets(lab: Lab) -> None:
    capture = lab.hosts["segment"].popen(
        ["tcpdump", "-c", "1", "-nli", "servers", "tcp port 22 and host 10.77.1.3"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert capture.stderr is not None
    while "listening on" not in capture.stderr.readline():
        assert capture.poll() is None
    lab.hosts["peer"].exec(["bash", "-c", "exec 3<>/dev/tcp/10.77.1.3/22"])  # Local: unseen.
    lab.hosts["origin"].exec(["bash", "-c", "exec 3<>/dev/tcp/10.77.1.3/22"])
    out, _ = capture.communicate(timeout=10)
    assert "10.77.1.1." in out


def test_nothing_leads_out(lab: Lab) -> None:
    for host in HOSTS:
        routes = json.loads(lab.hosts[host].exec(["ip", "-json", "route", "show", "default"]).stdout)
        assert [route["gateway"] for route in routes] == ([] if host == "gateway" else [routes[0]["gateway"]])
    assert lab.hosts["gateway"].exec(["ip", "route", "get", "192.0.2.1"], check=False).returncode != 0


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["true"], 0),
        (["sh", "-c", "exit 7"], 7),
        (["no-such-program"], 127),
        (["/etc/hostname"], 126),
        (["sh", "-c", "kill -TERM $$"], -signal.SIGTERM),
        (["sh", "-c", "kill -KILL $$"], -signal.SIGKILL),
    ],
)
def test_exec_returns_the_status(lab: Lab, words: list[str], status: int) -> None:
    assert lab.hosts["origin"].exec(words, check=False).returncode == status
    assert migrate_lab(lab.name, "exec", "origin", "--", *words).returncode == status


def test_exec_passes_the_streams(lab: Lab) -> None:
    done = migrate_lab(lab.name, "exec", "peer", "--", "sh", "-c", "cat; echo err >&2", input="in\n")
    assert (done.stdout, done.stderr) == ("in\n", "err\n")


def test_exec_passes_signals_on(lab: Lab) -> None:
    script = "trap 'echo got it; exit 9' TERM; echo ready; while :; do sleep 0.05; done"
    run = subprocess.Popen(
        command(lab.name, "exec", "origin", "--", "sh", "-c", script), stdout=subprocess.PIPE, text=True
    )
    assert run.stdout is not None
    assert run.stdout.readline() == "ready\n"
    run.terminate()
    assert run.communicate(timeout=10)[0] == "got it\n"
    assert run.returncode == 9


def test_exec_that_is_killed_takes_the_command_along(lab: Lab) -> None:
    run = lab.hosts["origin"].popen(
        ["sh", "-c", "echo $$; exec sleep 1000"], stdout=subprocess.PIPE, text=True
    )
    pid = int(run.stdout.readline())  # type: ignore[union-attr]
    run.kill()
    run.communicate(timeout=10)
    path = f"/proc/{pid}"
    wait_for(
        lambda: bool(lab.hosts["origin"].exec(["test", "-e", path], check=False).returncode), "it is gone"
    )


def test_exec_that_is_killed_leaves_no_zombie_to_a_machine_that_does_not_reap(lab: Lab) -> None:
    """Here the machine's init, which in a container may be anything, is this test."""
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        run = lab.hosts["origin"].popen(
            ["sh", "-c", "echo $$; exec sleep 1000"], stdout=subprocess.PIPE, text=True
        )
        pid = run.stdout.readline().strip()  # type: ignore[union-attr]
        run.kill()
        run.communicate(timeout=10)
        shown = ["ps", "-o", "pid=", "-p", pid]
        wait_for(lambda: not lab.hosts["origin"].exec(shown, check=False).stdout, "it is gone")
    finally:
        libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def test_exec_has_a_login_environment(lab: Lab) -> None:
    done = migrate_lab(lab.name, "exec", "peer", "--", "env", env=os.environ | {"SECRET": "1"})
    assert "SECRET" not in done.stdout
    assert "HOME=/root" in done.stdout


def test_spawn_prints_the_pid_the_host_sees(lab: Lab) -> None:
    host = lab.hosts["origin"]
    done = migrate_lab(
        lab.name, "spawn", "origin", "--log", "/tmp/log", "--", "sh", "-c", "echo $$; exec sleep 1000"
    )
    pid = int(done.stdout)
    wait_for(lambda: host.exec(["cat", "/tmp/log"]).stdout == f"{pid}\n", "it wrote its PID")
    wait_for(lambda: host.exec(["ps", "-o", "comm=", "-p", str(pid)]).stdout == "sleep\n", "it sleeps")
    ids = host.exec(["ps", "-o", "ppid=,sid=,pgid=", "-p", str(pid)]).stdout.split()
    assert ids == ["1", str(pid), str(pid)]
    files = host.exec(
        ["sh", "-c", f"ls /proc/{pid}/fd; readlink /proc/{pid}/fd/* /proc/{pid}/cwd"]
    ).stdout.split()
    assert files == ["0", "1", "2", "/dev/null", "/tmp/log", "/tmp/log", "/"]
    assert read(Path(f"/proc/{host.host_pid(pid)}/comm")) == b"sleep\n"
    host.exec(["kill", str(pid)])
    wait_for(lambda: bool(host.exec(["ps", "-p", str(pid)], check=False).returncode), "it is reaped")


def test_spawned_files_are_of_the_hosts_mounts(lab: Lab) -> None:
    """CRIU refuses a descriptor whose mount it does not find."""
    host = lab.hosts["destination"]
    pid = host.spawn(["sleep", "1000"], log="/var/log/sleep.log")
    used = host.exec(["sh", "-c", f"sed -n 's/^mnt_id:.//p' /proc/{pid}/fdinfo/*"]).stdout.split()
    mounts = host.exec(["cut", "-d ", "-f1", f"/proc/{pid}/mountinfo"]).stdout.split()
    assert len(used) == 3
    assert set(used) <= set(mounts)


def test_spawn_that_fails_says_so(lab: Lab) -> None:
    for words, status in ((["no-such-program"], 127), (["/etc/hostname"], 126)):
        done = migrate_lab(lab.name, "spawn", "origin", "--", *words)
        assert (done.returncode, done.stdout) == (status, "")
        assert "cannot execute" in done.stderr
    assert migrate_lab(lab.name, "spawn", "origin", "--log", "/no/dir", "--", "true").returncode == 127
    with pytest.raises(LabError, match="no-such-program"):
        lab.hosts["origin"].spawn(["no-such-program"])


def test_zombies_are_reaped(lab: Lab) -> None:
    host = lab.hosts["origin"]
    host.exec(["sh", "-c", "for i in 1 2 3; do (true &) ; (sleep 0.05 &) ; done"])
    wait_for(lambda: "Z" not in host.exec(["ps", "-eo", "stat="]).stdout, "no zombie is left")


def test_tun_is_usable(lab: Lab) -> None:
    lab.hosts["destination"].exec(
        ["sh", "-ec", "ip tuntap add mode tun name t0; ip tuntap del mode tun name t0"]
    )


def test_large_images_fit(lab: Lab) -> None:
    script = "for d in /run /dev/shm /tmp; do df --output=avail -k $d | tail -1; done"
    assert all(
        int(line) > 2 << 20 for line in lab.hosts["destination"].exec(["sh", "-c", script]).stdout.split()
    )


def test_commands_are_on_the_path(lab: Lab) -> None:
    bin_directory = Path(sys.executable).parent
    for program in ("migrate", "migrate-agent", "migrate-lab", "tcpcp", "criu"):
        if not (bin_directory / program).exists():
            continue
        for words in (["which", program], ["ssh", "destination", "which", program]):
            assert lab.hosts["origin"].exec(words).stdout == f"/usr/local/bin/{program}\n"


def test_shell(lab: Lab) -> None:
    done = migrate_lab(lab.name, "shell", "gateway", input="hostname; exit 3\n")
    assert (done.stdout, done.returncode) == ("gateway\n", 3)


def test_usage_errors() -> None:
    for words in (["exec", "origin"], ["exec"], ["nonsense"], ["up", "--", "x"], []):
        with pytest.raises(SystemExit) as caught:
            main(words)
        assert caught.value.code == 2
