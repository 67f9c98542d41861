"""What a lab of machines is made of: names, archives, command lines. No machine is started."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from argparse import ArgumentTypeError
from pathlib import Path

import pytest

from migrate.lab import LabError, enter, state, topology
from migrate.lab.arguments import by_host, make_parser
from migrate.lab.cli import in_a_word, main, what_runs
from migrate.lab.vm import (
    accelerator,
    box,
    cache,
    client,
    cpio,
    debian,
    disks,
    frames,
    kernels,
    modules,
    network,
    processors,
    project,
    qemu,
    root,
    routed,
    seed,
)
from migrate.lab.vm.lab import VmLab
from migrate.lab.vm.wish import Wish

NAMES = [
    "linux-image-6.1.0-9-cloud-amd64",
    "linux-image-6.1.0-56-cloud-amd64",
    "linux-image-6.1.0-56-amd64",
    "linux-image-6.1.0-56-cloud-amd64-unsigned",
    "linux-image-6.12.99+deb12-cloud-amd64",
    "linux-image-6.12.117+deb13-cloud-amd64",
    "linux-image-6.12-cloud-amd64",
    "linux-image-cloud-amd64",
]


@pytest.mark.parametrize(
    ("wanted", "release"),
    [
        ("6.1", "6.1.0-56-cloud-amd64"),
        ("6.12", "6.12.117+deb13-cloud-amd64"),
        ("6.12.99", "6.12.99+deb12-cloud-amd64"),
        ("6.1.0-9", "6.1.0-9-cloud-amd64"),
        ("6.1.0-56-amd64", "6.1.0-56-amd64"),
        ("linux-image-6.1.0-56-amd64", "6.1.0-56-amd64"),
    ],
)
def test_a_version_means_the_newest_that_begins_so(wanted: str, release: str) -> None:
    assert debian.newest(NAMES, wanted, "amd64") == "linux-image-" + release


def test_an_architecture_without_cloud_kernels_has_the_others() -> None:
    names = ["linux-image-6.12.9+deb13-s390x", "linux-image-6.12.88+deb13-s390x", "linux-image-s390x"]
    assert debian.newest(names, "6.12", "s390x") == names[1]


@pytest.mark.parametrize("wanted", ["5", "6.2", "6.1.0-5", "7", "", "../x", "6.1*"])
def test_what_is_no_kernel_is_refused_with_those_that_are(wanted: str) -> None:
    with pytest.raises(LabError, match=r"6\.1, 6\.12"):
        debian.newest(NAMES, wanted, "amd64")


@pytest.mark.parametrize(
    ("kept", "wanted", "meant"),
    [
        (["6.12.118+deb13-rt-amd64"], "6.12", None),
        (["6.12.118+deb13-rt-amd64"], "6.12.118", None),
        (["6.12.118+deb13-rt-amd64"], "6.12.118+deb13-rt-amd64", "6.12.118+deb13-rt-amd64"),
        (["6.12.118+deb13-amd64"], "linux-image-6.12.118+deb13-amd64", "6.12.118+deb13-amd64"),
        (["6.12.118+deb13-amd64"], "6.12", None),
        (["6.12.118+deb13-rt-amd64", "6.12.9+deb13-cloud-amd64"], "6.12", "6.12.9+deb13-cloud-amd64"),
        ([], "6.12", None),
        (["6.1.0-50-s390x"], "6.1.0-50-s390x", None),
        (["6.1.0-50-s390x", "6.1.0-50-arm64-16k"], "linux-image-6.1.0-50-arm64-16k", None),
    ],
)
def test_a_kernel_that_is_kept_is_not_taken_for_another_one(
    kept: list[str], wanted: str, meant: str | None
) -> None:
    """A version means a cloud kernel, of which the others, made for somebody who named them, are no part."""
    found = debian.settled(["linux-image-" + release for release in kept], wanted, "amd64")
    assert found == (meant and "linux-image-" + meant)


def test_what_is_kept_for_an_architecture_without_cloud_kernels_is_taken() -> None:
    assert debian.settled(["linux-image-6.1.0-50-s390x"], "6.1", "s390x") == "linux-image-6.1.0-50-s390x"


def test_a_kernel_for_another_size_of_pages_is_of_its_architecture() -> None:
    name = "linux-image-6.12.118+deb13-arm64-16k"
    assert debian.settled([name], name, "arm64") == name


def test_a_plain_kernel_goes_before_a_real_time_one() -> None:
    names = ["linux-image-6.12.9+deb13-rt-amd64", "linux-image-6.12.9+deb13-amd64"]
    assert debian.newest(names, "6.12", "amd64") == names[1]
    assert debian.newest(names, "6.12.9+deb13-rt", "amd64") == names[0]


def test_a_package_that_only_depends_on_a_kernel_means_that() -> None:
    """As apt-cache shows it: the first version of it is the newest."""
    shown = (
        "Package: linux-image-cloud-amd64\nDepends: linux-image-6.12.118+deb13-cloud-amd64 (= 6.12.118-1)\n"
    )
    assert debian.behind(NAMES[-1], shown) == "linux-image-6.12.118+deb13-cloud-amd64"
    assert debian.behind(NAMES[0], "") == NAMES[0]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("linux-image-6.1.0-9-amd64-dbg", ""),
        ("linux-image-amd64-dbg", "Depends: linux-image-6.1.0-9-amd64-dbg (= 6.1)\n"),
        ("linux-image-amd64-signed-template", "Depends: make\n"),
    ],
)
def test_a_package_without_a_kernel_is_refused(name: str, shown: str) -> None:
    with pytest.raises(LabError, match=f"{name} has no kernel in it"):
        debian.behind(name, shown)


MODULES_DEP = """\
kernel/drivers/net/virtio_net.ko.xz: kernel/drivers/net/net_failover.ko.xz kernel/net/core/failover.ko.xz
kernel/drivers/net/net_failover.ko.xz: kernel/net/core/failover.ko.xz
kernel/net/core/failover.ko.xz:
kernel/drivers/char/hw_random/virtio-rng.ko:
"""


def test_modules_are_loaded_after_what_they_need_and_once() -> None:
    order = modules.in_order(MODULES_DEP, ["virtio_pci", "net_failover", "virtio_net", "virtio_rng"])
    assert [modules.name_of(path) for path in order] == [
        "failover",
        "net_failover",
        "virtio_net",
        "virtio_rng",
    ]


def test_an_archive_is_read_again() -> None:
    """By a reader of its own, from the description of the format."""
    entries = {
        "lab": cpio.Entry(None),
        "lab/odd": cpio.Entry(b"12345", 0o600),
        "lab/even": cpio.Entry(b"12345678"),
    }
    found = dict(read_archive(cpio.archive(entries)))
    assert found == {
        "lab": (0o40755, b""),
        "lab/odd": (0o100600, b"12345"),
        "lab/even": (0o100755, b"12345678"),
    }


def read_archive(data: bytes) -> list[tuple[str, tuple[int, bytes]]]:
    found, at = [], 0
    while True:
        assert data[at : at + 6] == b"070701"
        fields = [int(data[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = data[at + 110 : at + 110 + name_size - 1].decode()
        at += (110 + name_size + 3) // 4 * 4
        if name == "TRAILER!!!":
            return found
        found.append((name, (mode, data[at : at + size])))
        at += (size + 3) // 4 * 4


@pytest.mark.parametrize("host", topology.HOSTS)
def test_a_machine_gets_the_addresses_of_the_host(host: str) -> None:
    """What ``ip`` is told has every address of the topology; the service's is tried on origin alone."""
    words = [line.split() for line in network.commands(host) if " addr " in f" {line}"]
    addresses = {line[line.index("add") + 1].partition("/")[0] for line in words}
    service = {topology.SERVICE.ipv6} if host == "origin" else set()
    assert addresses == set(topology.own_addresses(host)) | service
    assert all(("nodad" in line) == ("::100/" not in line[2]) for line in words if ":" in line[2])
    assert bool(service) == bool(network.service_device(host))


def test_of_two_addresses_the_services_is_not_preferred() -> None:
    lines = [line for line in network.commands("origin") if "addr add" in line]
    assert [line.split()[2].partition("/")[0] for line in lines] == [
        topology.SERVICE.ipv6,
        "10.77.1.1",
        "fd77:1::1",
    ]  # That of IPv4 comes last, see test_claim.py.


def test_no_two_interfaces_share_a_name_or_an_ethernet_address() -> None:
    taps = [tap for host in topology.HOSTS for tap in network.taps(host)]
    assert len({name for name, _ in taps}) == len({address for _, address in taps}) == len(taps) == 10
    assert all(len(name) <= 15 for name, _ in taps)  # IFNAMSIZ
    for host in topology.HOSTS:
        assert list(network.interfaces(host)) == [address for _, address in network.taps(host)]


def test_a_machine_of_vagrants_keeps_its_own_default_route() -> None:
    """Its interfaces have other names; the lab's other network goes by the lab's gateway."""
    lines = routed.lines("peer", ["enp0s8", "enp0s9"])
    assert not any("default" in line or "eth" in line for line in lines)
    assert "route add 10.77.1.0/24 via 10.77.2.254 dev enp0s8 src 10.77.2.1" in lines
    assert "addr add 10.77.1.3/24 dev enp0s9 noprefixroute" in lines
    found = routed.settings("peer", ["enp0s8", "enp0s9"], seed.sysctls("peer"))
    assert found["net/ipv4/conf/enp0s9/arp_ignore"] == "1"
    assert not any("/all/arp" in key or "/default/" in key for key in found if "forward" not in key)


def test_devices_may_have_the_names_of_other_legs() -> None:
    """eth0 is Vagrant's own, so the lab's eth0 is eth1 there, and its eth1 eth2."""
    lines = routed.lines("gateway", ["eth1", "eth2"])
    assert "addr add 10.77.1.254/24 dev eth1" in lines
    assert "addr add 10.77.2.254/24 dev eth2" in lines
    assert [line for line in lines if line.startswith("link")][1:] == ["link set eth1 up", "link set eth2 up"]


def test_what_runs_in_machines_needs_nothing_but_python() -> None:
    """A box may have no package of ours, and a machine of another architecture has none."""
    for module in ("routed", "guest"):
        words = [
            "-I",
            "-S",
            "-c",
            f"import sys; sys.path[:0] = [{str(root.PROJECT)!r}]; import migrate.lab.vm.{module}",
        ]
        subprocess.run([sys.executable, *words], check=True, timeout=60)


def test_settings_reach_interfaces_that_are_there_already() -> None:
    found = seed.sysctls("peer")
    assert found["net/ipv4/conf/eth1/arp_ignore"] == found["net/ipv4/conf/default/arp_ignore"] == "1"


def test_a_seed_has_all_that_the_guest_reads() -> None:
    found = dict(read_archive(seed.archive("origin", {"/etc/ssh/sshd_config": (0o644, "x")})))
    spec = json.loads(found["lab/spec.json"][1])
    assert spec["hostname"] == "origin"
    assert spec["files"]["/etc/ssh/sshd_config"] == [0o644, "x"]
    assert spec["control_address"].startswith(network.control_address("origin"))
    assert found["lab/spec.json"][0] == 0o100600  # It holds a key.
    assert found["lab/init"][0] & 0o111


@pytest.mark.parametrize("name", ["plain", "it's", '"$HOME"', "`x`\\", "a\\nb{0}"])
def test_a_seed_starts_the_guest_of_a_checkout_of_any_name(tmp_path: Path, name: str) -> None:
    """By sh and Python, in both of which a path may mean something else."""
    guest = tmp_path / name / "migrate/lab/vm/guest.py"
    guest.parent.mkdir(parents=True)
    guest.write_text("import sys\n\n\ndef main():\n    print(sys.argv[1:])\n")
    script = seed.script(tmp_path / name, "serve")
    done = subprocess.run(["sh"], input=script, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "['serve']\n"


@pytest.mark.parametrize(
    ("accelerator", "cpu", "model"),
    [
        ("tcg", "", "max,-cx16"),
        ("kvm", "", "host"),
        ("tcg", "Haswell", "Haswell,-cx16"),
        ("kvm", "Haswell", "Haswell"),
    ],
)
def test_emulated_processors_have_no_cmpxchg16b(accelerator: str, cpu: str, model: str) -> None:
    assert qemu.model(accelerator, cpu) == model


def test_a_checkout_with_a_blank_in_its_path_is_refused() -> None:
    assert "lab.project=/srv/a/b" in qemu.words("/init", Path("/srv/a/b"))
    with pytest.raises(LabError, match="/srv/a b: .* blanks"):
        qemu.words("/init", Path("/srv/a b"))


def test_a_path_with_a_comma() -> None:
    """QEMU has commas between options, and doubled ones in them."""
    disks = ((Path("/a,b/root"), False), (Path("/run/vm/disk"), True))
    machine = qemu.Machine("m", Path("/k"), Path("/f"), "", disks, (), Path("/run/vm/m"))
    drives = [one for one in qemu.arguments(machine, 0.0) if one.startswith("file=/")]
    assert [one.split(",if=")[0] for one in drives] == ["file=/a,,b/root", "file=/run/vm/disk"]


@pytest.mark.skipif(shutil.which("qemu-img") is None, reason="needs qemu-img")
def test_no_disk_takes_more_than_its_part() -> None:
    """By QEMU's own reckoning of a disk that is written from end to end."""
    words = ["qemu-img", "measure", "--output=json", "--size", str(root.SIZE_BYTES), "-O", "qcow2"]
    found = json.loads(subprocess.run(words, capture_output=True, check=True, timeout=60).stdout)
    assert root.SIZE_BYTES < found["fully-allocated"] <= disks.most(root.SIZE_BYTES)


def test_a_clock_that_is_ahead() -> None:
    assert qemu.clock(0, 0.0) == "base=utc"
    assert qemu.clock(7200, 0.0) == "base=1970-01-01T02:00:00"
    assert qemu.clock(-3600, 86400.0) == "base=1970-01-01T23:00:00"


def test_frames_come_whole_however_they_are_cut() -> None:
    sent = (
        frames.frame(frames.OUTPUT, b"abc") + frames.frame(frames.INPUT) + frames.frame(frames.STATUS, b"0")
    )
    for step in (1, 3, 7, len(sent)):
        reader = frames.Reader()
        found = [one for at in range(0, len(sent), step) for one in reader.add(sent[at : at + step])]
        assert found == [(frames.OUTPUT, b"abc"), (frames.INPUT, b""), (frames.STATUS, b"0")]


def test_a_command_that_is_too_long_is_refused_before_it_is_sent() -> None:
    with pytest.raises(LabError, match="no more than"):
        client.request("exec", "", ["x" * frames.LONGEST])


def test_a_frame_that_is_too_long_is_refused() -> None:
    with pytest.raises(frames.Unexpected):
        frames.Reader().add(b"\4\x7f\xff\xff\xff")


def test_pins_of_the_commands_and_of_the_clients_alone() -> None:
    found = root.requirements("# what\na==1\nb==2\n\npytest==3\nredis==4\nruff==5\n")
    assert found == ["a==1", "b==2", "redis==4"]


def test_every_command_of_the_project_is_in_the_machines() -> None:
    """setup.cfg has the entry points; those of machines are written down once more, since no pip runs there."""
    text = (root.PROJECT / "setup.cfg").read_text() + (root.PROJECT / "plugin" / "setup.cfg").read_text()
    for name, module in project.ENTRIES.items():
        script = root.PROJECT / "migrate/lab" / name
        if script.exists():
            assert f"scripts = migrate/lab/{name}\n" in text
            assert f"from {module} import main" in script.read_text()
        else:
            assert f"{name} = {module}:main" in text


def test_the_commands_of_the_document_can_be_typed_as_they_stand() -> None:
    """The first lines of what it shows of the lab make the commands, and have them found."""
    text = (root.PROJECT / "docs/labs.md").read_text()
    block = next(one for one in text.split("\n\n") if "    migrate-lab --vm " in one)
    commands = [line.partition("#")[0].strip() for line in block.splitlines()]
    assert commands[:2] == ["tools/setup vm", 'PATH="$PWD/.venv/bin:$PATH"']
    assert "vm" in (root.PROJECT / commands[0].split()[0]).read_text()
    for line in commands[2:]:
        words = shlex.split(line.removeprefix("pid=$(").removesuffix(")"))
        given = words[1 : words.index("--") if "--" in words else None]
        assert (words[0], make_parser().parse_args(given).vm) == ("migrate-lab", True)


def test_outside_a_checkout_it_is_said_how_to_begin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(root, "REQUIREMENTS", tmp_path / "none")
    with pytest.raises(
        LabError, match=r"run there `tools/setup vm`, once, and then `\.venv/bin/migrate-lab`"
    ):
        root.root()


def test_what_vagrant_leaves_is_told() -> None:
    """All that the Vagrantfile writes is in one directory, which is named, and its copy of the checkout."""
    text = (root.PROJECT / "vagrant/Vagrantfile").read_text()
    names = re.findall(r'^LAB_\w+ = File\.join\(LAB_FILES, "([^"]+)"\)', text, re.MULTILINE)
    told = (root.PROJECT / "vagrant/README.md").read_text()
    assert sorted(names) == ["keys", "source.tar.gz"]
    assert "in `.vagrant/lab` the keys and\n`source.tar.gz`" in told


def test_values_by_host() -> None:
    assert by_host("origin=6.1,peer=6.12") == {"origin": "6.1", "peer": "6.12"}
    for bad in ("", "origin", "origin=", "=6.1", "origin=1,,"):
        with pytest.raises(ArgumentTypeError):
            by_host(bad)
    with pytest.raises(ArgumentTypeError, match="origin is in it twice"):
        by_host("origin=6.1,peer=6.12,origin=6.12")


@pytest.mark.parametrize(
    ("option", "values", "first", "second"),
    [
        ("kernel", {"origin": "6.1", "peer": "6.12"}, "origin=6.1", "peer=6.12"),
        ("cpu", {"origin": "Haswell", "peer": "Nehalem"}, "origin=Haswell", "peer=Nehalem"),
        ("clock", {"origin": 5, "peer": -7}, "origin=5", "peer=-7"),
        ("arch", {"origin": "s390x", "peer": "arm64"}, "origin=s390x", "peer=arm64"),
    ],
)
def test_what_is_said_host_after_host_adds_up(
    option: str,
    values: dict[str, object],
    first: str,
    second: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    parser = make_parser()
    found = parser.parse_args(["--vm", f"--{option}", first, f"--{option}={second}", "up"])
    assert getattr(found, option) == values
    assert getattr(parser.parse_args(["up"]), option) == {}
    with pytest.raises(SystemExit):
        parser.parse_args(["--vm", f"--{option}", first, f"--{option}", first, "up"])
    assert "origin is in it twice" in capsys.readouterr().err


def test_each_command_says_how_it_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    uses = {"power": "--vm [--name NAME] power HOST on | off"}
    uses["exec"] = "[--vm] [--name NAME] exec HOST -- CMD [ARG ...]"
    uses["down"] = "[--vm] [--name NAME] up | down | status [--json]"
    for verb, words in uses.items():
        with pytest.raises(SystemExit):
            make_parser().parse_args([verb, "--help"])
        said = capsys.readouterr().out.partition("\n\n")[0]
        assert said == f"usage: migrate-lab {words}"
    with pytest.raises(SystemExit):
        make_parser().parse_args(["shell"])
    assert capsys.readouterr().err.splitlines()[-1].startswith("migrate-lab shell: error: ")


@pytest.mark.parametrize(
    "words",
    [
        ["--kernel", "origin=6.1", "up"],
        ["power", "origin", "off"],
        ["--vm", "--kernel", "origin", "up"],
        ["--vm", "--clock", "origin=soon", "up"],
        ["--vm", "power", "origin", "sideways"],
        ["--arch", "origin=arm64", "up"],
        ["--systemd", "up"],
    ],
)
def test_usage_errors(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert "_host value" not in capsys.readouterr().err  # A name of ours.


def needs(architecture: str) -> pytest.MarkDecorator:
    program = qemu.ARCHITECTURES[architecture].program
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"needs {program}")


@pytest.mark.parametrize(
    ("cpu", "architecture", "why"),
    [
        pytest.param("nonsense", "amd64", "unable to find CPU model 'nonsense'", marks=needs("amd64")),
        pytest.param("host", "amd64", "CPU model 'host' requires KVM", marks=needs("amd64")),
        pytest.param("486", "amd64", "it has no 64-bit mode", marks=needs("amd64")),
        pytest.param("help", "amd64", "that is no name of a model", marks=needs("amd64")),
        pytest.param("Haswell", "amd64", "", marks=needs("amd64")),
        pytest.param("cortex-a9", "arm64", "mach-virt: CPU type cortex-a9", marks=needs("arm64")),
        pytest.param("cortex-a57", "arm64", "", marks=needs("arm64")),
        pytest.param(
            "z14", "s390x", "Some features requested in the CPU model are not", marks=needs("s390x")
        ),
        pytest.param("z900", "s390x", "", marks=needs("s390x")),
    ],
)
def test_a_processor_that_no_machine_can_have_is_refused(cpu: str, architecture: str, why: str) -> None:
    """By QEMU itself, before anything boots; with what lists those that there are."""
    wish = Wish({}, {"peer": cpu}, {}, {"peer": architecture}, False)
    if not why:
        processors.check(wish, "tcg")
        return
    lists = f"`{qemu.ARCHITECTURES[architecture].program} -cpu help` lists what there is"
    with pytest.raises(LabError) as caught:
        processors.check(wish, "tcg")
    assert str(caught.value).startswith(f"peer cannot have the processor {cpu!r}: {why}")
    assert str(caught.value).endswith(lists)


@pytest.mark.skipif(os.geteuid() != 0, reason="machines need root")
def test_an_up_asks_for_its_processors_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Not once a segment, or the image, is made."""
    monkeypatch.setattr(state, "BASE", tmp_path / "labs")
    monkeypatch.setattr(root, "is_built", lambda: True)
    monkeypatch.setattr(root, "of", lambda _: pytest.fail("an image is made"))
    monkeypatch.setattr(kernels, "kernel", lambda *_: None)
    monkeypatch.setattr(accelerator, "accelerator", lambda _: "tcg")
    monkeypatch.setattr(processors, "problem", lambda *_: "no")
    with pytest.raises(
        LabError, match="peer cannot have the processor 'x': no; `qemu-system-x86_64 -cpu help`"
    ):
        VmLab("one", cpus={"peer": "x"}).up()
    assert not (tmp_path / "labs").exists()


@pytest.mark.parametrize("verb", ["down", "status", "exec peer", "spawn peer", "shell peer", "power peer on"])
@pytest.mark.parametrize(
    "option", ["--kernel peer=6.1", "--cpu peer=Haswell", "--clock peer=1", "--arch peer=arm64", "--systemd"]
)
def test_what_machines_are_made_of_is_for_up_alone(
    verb: str, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It had no effect elsewhere, without a word."""
    command = ["--", "true"] if verb.split()[0] in ("exec", "spawn") else []
    with pytest.raises(SystemExit) as caught:
        main(["--vm", "--name", "none", *option.split(), *verb.split(), *command])
    said = capsys.readouterr().err.splitlines()[-1]
    wanted = f"{option.split()[0]}: for up alone, which makes the machines; {verb.split()[0]} takes none"
    assert (caught.value.code, said) == (2, f"migrate-lab: error: {wanted}")


@pytest.mark.parametrize("seconds", ["9999999999999999", "-9999999999", "99999999999", "9" * 400])
def test_a_clock_that_no_machine_can_have_is_refused(
    seconds: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--vm", "--name", "none", "--clock", f"origin={seconds}", "up"]) == 1
    assert "between the years 1970 and 2099" in capsys.readouterr().err


@pytest.mark.parametrize("wanted", ["on", "off"])
def test_a_second_interface_has_no_power(wanted: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It was its machine that was switched, without a word."""
    assert main(["--vm", "--name", "none", "power", "neighbour", wanted]) == 1
    said = f"neighbour is no machine but an interface of peer: say power peer {wanted}"
    assert capsys.readouterr().err == f"migrate-lab: {said}\n"


@pytest.mark.parametrize("host", ["segment", "nobody"])
def test_what_is_no_machine_has_no_power(host: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--vm", "--name", "none", "power", host, "on"]) == 1
    assert f"{host} is no machine" in (said := capsys.readouterr().err) or f"no host '{host}'" in said


def test_a_status_says_which_machines_are_off() -> None:
    def status(up: bool, **on: bool) -> dict[str, object]:
        machines = {host: {"machine": {"on": one, "answers": one}} for host, one in on.items()}
        return {"name": "one", "up": up, "hosts": machines}

    assert in_a_word(status(True, origin=True, peer=True)) == "up"
    starts = "`migrate-lab --vm --name one up` starts what is off"
    assert in_a_word(status(False, origin=True, peer=False)) == f"up in part: peer is off: {starts}"
    assert in_a_word(status(False, origin=False, peer=False)).startswith("up in part: origin, peer are off")
    assert in_a_word({"up": False, "hosts": {"origin": {}}}) == "down"


def test_a_status_says_which_machines_do_not_answer() -> None:
    machines = {
        "origin": {"on": True, "answers": False, "stopped": False},
        "gateway": {"on": True, "answers": True},
        "peer": {"on": False, "answers": False},
    }
    status = {
        "name": "one",
        "up": False,
        "hosts": {name: {"machine": one} for name, one in machines.items()},
    }
    assert in_a_word(status) == (
        "up in part: peer is off: `migrate-lab --vm --name one up` starts what is off;"
        " origin does not answer: it may be booting; if it stays so,"
        " `migrate-lab --vm --name one power origin off`, then `on`, boots it anew"
    )
    assert what_runs(status["hosts"]["origin"]) == "does not answer"  # type: ignore[index]
    machines["origin"]["stopped"] = True
    assert in_a_word(status).endswith(
        "; origin does not answer: its kernel has stopped, as its console says;"
        " `migrate-lab --vm --name one power origin off`, then `on`, boots it anew"
    )


#: Once all is imported: Python itself may be root's alone.
AS_NOBODY = """
import os, sys
from migrate.lab import cli, errors, state
import migrate.lab.vm.lab
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
"""


def as_nobody(program: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", AS_NOBODY + program, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("words", "status"),
    [
        ("status", 1),
        ("down", 1),
        ("power peer off", 1),
        ("exec peer -- true", 125),
        ("spawn peer -- true", 125),
    ],
)
def test_machines_are_refused_without_root(words: str, status: int) -> None:
    done = as_nobody("sys.exit(cli.main(['--vm', '--name', 'none', *sys.argv[1:]]))", *words.split())
    said = "migrate-lab: machines need root, also to be looked at\n"
    assert (done.returncode, done.stderr) == (status, said)


def test_a_lab_is_not_ended_without_root() -> None:
    program = (
        "try: state.end({'x': state.Init(int(sys.argv[1]), int(sys.argv[2]))})\n"
        "except errors.LabError as error: print(error)"
    )
    with subprocess.Popen(["sleep", "600"]) as init:
        done = as_nobody(program, str(init.pid), str(enter.start_ticks(init.pid)))
        init.kill()
    assert (done.stdout, done.stderr) == ("to bring a lab down needs root\n", "")


def test_a_complaint_that_cannot_be_written_changes_no_status() -> None:
    words = f"{sys.executable} -m migrate.lab --vm --name none exec origin -- true 2>/dev/full"
    assert subprocess.run(["sh", "-c", words], timeout=60).returncode == 125


CLEANS_UP = """
import signal
from migrate.lab.ends import cleaning_up
with cleaning_up():
    try:
        print("begun", flush=True)
        signal.pause()
    finally:
        print("cleaned", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_an_up_that_is_ended_cleans_up(number: signal.Signals) -> None:
    """And ends by the signal, with a word, which Ctrl-C has too."""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", CLEANS_UP], stdout=pipe, stderr=pipe, text=True) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "begun\n"
        run.send_signal(number)
        said = ("cleaned\n", f"migrate-lab: interrupted by {number.name}\n")
        assert (run.communicate(timeout=60), run.returncode) == (said, -number)


def test_programs_are_found_where_only_root_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert shutil.which("mkfs.ext4") is None
    with cache.filling():
        assert shutil.which("mkfs.ext4")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system")
def test_a_cache_without_room_is_refused_before_it_is_filled(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "migrate.lab", "--vm", "--name", f"none-{os.getpid()}", "up"]
    script = f'mount -t tmpfs -o size=20m cache {tmp_path} && "$@"; ls -A {tmp_path}'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", *words],
        env=os.environ | {"MIGRATE_LAB_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == ""
    needed = "where machines need 1500 MB, and 400 MB for each kernel more"
    said = f"migrate-lab: in {tmp_path} 20 MB are free, {needed}; MIGRATE_LAB_CACHE names another directory\n"
    assert done.stderr == said


@pytest.mark.skipif(os.geteuid() != 0, reason="needs namespaces")
def test_a_builder_without_room_says_how_much_is_needed_before_what_it_said() -> None:
    with pytest.raises(LabError) as caught:
        cache.run(["sh", "-c", "/bin/echo much >/dev/full; seq 1000 >&2; exit 3"])
    assert str(caught.value).startswith(f"sh failed with status 3: no space left; in {cache.CACHE} ")
    assert "MIGRATE_LAB_CACHE names another directory: " in str(caught.value)
    with pytest.raises(LabError, match="status 3: $"):
        cache.run(["sh", "-c", "exit 3"])


def test_a_cache_with_a_blank_in_its_path_is_refused(tmp_path: Path) -> None:
    surroundings = os.environ | {"MIGRATE_LAB_CACHE": str(tmp_path / "a b")}
    words = [sys.executable, "-m", "migrate.lab", "--vm", "--name", "none", "up"]
    done = subprocess.run(words, env=surroundings, capture_output=True, text=True, timeout=60)
    assert (done.returncode, "has a blank in it" in done.stderr) == (1, True)
    assert not (tmp_path / "a b").exists()


def test_a_cache_is_meant_by_its_own_name(tmp_path: Path) -> None:
    """A link is a name that the segment may not know."""
    (tmp_path / "link").symlink_to(tmp_path / "real")
    surroundings = os.environ | {"MIGRATE_LAB_CACHE": str(tmp_path / "link")}
    words = [sys.executable, "-c", "from migrate.lab.vm import cache; print(cache.CACHE)"]
    done = subprocess.run(words, env=surroundings, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str((tmp_path / "real").resolve())


@pytest.mark.parametrize("kept", [b"\xff\xfe", b"", b"nothing BOOT", b"kvm", b"tcg BOOT\n"])
def test_a_note_of_the_accelerator_that_says_nothing_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: bytes
) -> None:
    monkeypatch.setattr(accelerator.cache, "CACHE", tmp_path)
    monkeypatch.setattr(qemu, "PROGRAM", "true")
    monkeypatch.setattr(accelerator, "boots", lambda name, _: name == "tcg")
    note = tmp_path / "accelerator"
    note.write_bytes(kept.replace(b"BOOT", state.boot_id().encode()))
    assert accelerator.accelerator(kernels.Kernel("", note, note, note)) == "tcg"
    assert note.read_text() == f"tcg {state.boot_id()}\n"


def test_a_host_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--vm", "--kernel", "nobody=6.1", "up"]) == 1
    assert "no host 'nobody'" in capsys.readouterr().err


def test_systemd_of_another_architecture_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--vm", "--name", "none", "--arch", "origin=amd64,peer=s390x", "--systemd", "up"]) == 1
    assert (
        "peer cannot boot systemd: a machine of s390x has Python and the library" in capsys.readouterr().err
    )
    VmLab(architectures={"origin": "amd64"}, systemd=True)


@pytest.mark.parametrize(
    "words", ["status", "up", "down", "exec peer -- cat", "spawn peer -- cat", "shell peer"]
)
def test_a_directory_as_standard_input_is_refused_in_a_sentence(words: str, tmp_path: Path) -> None:
    """Before Python, which would not start, and tell it as a fault of its own."""
    command = f"{Path(sys.executable).parent / 'migrate-lab'} --vm --name none {words} < {tmp_path}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (2, "migrate-lab: standard input is a directory\n")


def test_the_command_does_not_import_from_where_it_is_called(tmp_path: Path) -> None:
    """It runs as root; and is found by any link to it."""
    (tmp_path / "argparse.py").write_text("raise SystemExit('imported')")
    (tmp_path / "link").symlink_to(Path(sys.executable).parent / "migrate-lab")
    done = subprocess.run(
        [tmp_path / "link", "--help"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout.startswith("usage: migrate-lab [--vm]")) == (0, True)


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes somebody else")
@pytest.mark.parametrize(
    ("user", "helps"),
    [(65534, "run migrate-lab as root"), (0, "make the environment anew: its link leads to no program")],
)
def test_a_python_beside_it_that_cannot_be_run_is_told(user: int, helps: str) -> None:
    """It went on with PATH's, where nothing of the project is: a traceback."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:  # Which others may enter, unlike pytest's.
        place = Path(name).resolve()
        place.chmod(0o755)
        shutil.copy(root.PROJECT / "migrate/lab/migrate-lab", place / "migrate-lab")
        (place / "private").mkdir(mode=0o700)
        if user:
            (place / "private/python3").symlink_to(sys.executable)
        (place / "python3").symlink_to("private/python3")
        done = subprocess.run(
            [place / "migrate-lab", "--help"],
            **{"user": user, "group": user, "extra_groups": [], "cwd": "/", "timeout": 60},
            capture_output=True,
            text=True,
        )
    said = f"migrate-lab: its Python, {place}/python3, cannot be run by you: {helps}\n"
    assert (done.returncode, done.stdout, done.stderr) == (126, "", said)


@pytest.mark.parametrize("words", [[], ["FILE"]])
def test_what_comes_after_a_box_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    file = tmp_path / (words[0] if words else "default")
    monkeypatch.setattr(box, "make", lambda file: file.write_text(""))
    monkeypatch.setattr(box, "DEFAULT", file)
    monkeypatch.setattr(sys, "argv", ["box", *(str(file) for _ in words)])
    assert box.main() == 0
    assert f"vagrant box add --name migrate-lab {file}\n" in capsys.readouterr().out


def test_two_boxes_are_made_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second waits: its directory is the first one's. What one that was killed left is gone."""
    monkeypatch.setattr(box.cache, "CACHE", tmp_path)
    monkeypatch.setattr(box.cache, "BUILD_DEADLINE_S", 0.1)
    monkeypatch.setattr(box.accelerator, "accelerator", lambda _: "tcg")
    monkeypatch.setattr(box.root, "root", lambda: tmp_path)
    monkeypatch.setattr(box.kernels, "kernel", lambda: None)
    work = tmp_path / "file.work"

    def first(*_: object) -> None:
        (work / "of the first").touch()
        with pytest.raises(LabError, match="another process has been building"):
            box.make(tmp_path / "file")
        assert list(work.iterdir()) == [work / "of the first"]
        raise LabError("enough of it")

    monkeypatch.setattr(box.cache, "run", first)
    work.mkdir()
    (work / "of one that was killed").touch()
    with pytest.raises(LabError, match="enough of it"):
        box.make(tmp_path / "file")
    assert not work.exists()


def test_a_box_has_the_key_of_vagrant_without_vagrant() -> None:
    """By its fingerprint it is the one that Vagrant tries first in a new machine, as ssh-keygen -l says it."""
    kind, data, _ = box.KEY.read_text().split(maxsplit=2)
    found = base64.b64encode(hashlib.sha256(base64.b64decode(data)).digest())
    assert (kind, found) == ("ssh-rsa", b"1M4RzhMyWuFS/86uPY/ce2prh/dVTHW7iD2RhpquOZA=")
