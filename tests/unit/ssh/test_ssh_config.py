"""The user's ssh configuration as one value."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from migrate.errors import TransportError, UsageError
from migrate.ssh import config as ssh_config
from migrate.ssh import host


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory with an empty .ssh, and an empty system configuration in ``etc`` beside it."""
    (tmp_path / "home/.ssh").mkdir(parents=True)
    (tmp_path / "etc").mkdir()
    monkeypatch.setattr(ssh_config, "SYSTEM", tmp_path / "etc")
    return tmp_path / "home"


def write(home: Path, text: str, name: str = "config") -> None:
    path = home / ".ssh" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


def test_defaults(home: Path) -> None:
    config = ssh_config.look_up("h", home=home)
    ssh = home / ".ssh"
    assert (config.hostname, config.port, config.host_keys.name) == ("h", 22, "h")
    assert config.user == pwd.getpwuid(os.getuid()).pw_name
    assert config.identities == tuple(str(ssh / f"id_{kind}") for kind in ("ed25519", "ecdsa", "rsa"))
    assert config.host_keys.files[:2] == (str(ssh / "known_hosts"), str(ssh / "known_hosts2"))
    assert config.host_keys.files[2] == str(ssh_config.SYSTEM / "ssh_known_hosts")
    assert (config.proxy_command, config.proxy_jump) == ("", ())


def test_what_the_user_configured(home: Path) -> None:
    write(
        home,
        """
        Host box
            HostName 10.0.0.1
            Port 2222
            User admin
            IdentityFile ~/.ssh/a
            IdentityFile /b
            IdentitiesOnly yes
            UserKnownHostsFile ~/.ssh/kh1 /kh2
            GlobalKnownHostsFile none
            ConnectTimeout 3
            ProxyJump j1, admin@j2:23
            StrictHostKeyChecking no
        Host *
            Port 9
            User nobody
        """,
    )
    config = ssh_config.look_up("box", home=home)
    assert (config.name, config.hostname, config.port, config.user) == ("box", "10.0.0.1", 2222, "admin")
    assert config.host_keys.name == "[10.0.0.1]:2222"
    assert config.identities == (f"{Path.home()}/.ssh/a", "/b")
    assert config.identities_only
    assert config.host_keys.files == (f"{home}/.ssh/kh1", "/kh2")
    assert (config.timeout_s, config.proxy_jump) == (3, ("j1", "admin@j2:23"))


def test_arguments_win_also_in_tokens(home: Path) -> None:
    write(home, "Host h\n Port 1\n User u\n IdentityFile /a\n ProxyCommand nc %h %p %r\n")
    config = ssh_config.look_up("me@h", port=7, identity="/k", home=home)
    assert (config.user, config.port, config.identities) == ("me", 7, ("/k",))
    assert config.proxy_command == "nc h 7 me"


def test_alias_and_none(home: Path) -> None:
    write(home, "Host h\n HostKeyAlias known\n ProxyCommand none\n ProxyJump none\n Port 7\n")
    config = ssh_config.look_up("h", home=home)
    assert (config.host_keys.name, config.proxy_command, config.proxy_jump) == ("known", "", ())


def test_user_before_system_and_includes(home: Path) -> None:
    (ssh_config.SYSTEM / "ssh_config").write_text("Include d/*.conf\nPort 5\n")
    (ssh_config.SYSTEM / "d").mkdir()
    (ssh_config.SYSTEM / "d/a.conf").write_text("User system\nConnectTimeout 4\n")
    write(home, "Host x\n Include sub/x\n HostName inx\nHost *\n IdentityFile /b\n")
    write(home, "User included\nHost other\n User wrong\n", "sub/x")
    config = ssh_config.look_up("x", home=home)
    assert (config.user, config.hostname, config.port, config.timeout_s) == ("included", "inx", 5, 4)
    assert ssh_config.look_up("y", home=home).user == "system"


@pytest.mark.parametrize("text", ["Port many\n", "Include config\n", "===\n"])
def test_nonsense_is_a_clear_error(home: Path, text: str) -> None:
    write(home, text)
    with pytest.raises(TransportError, match="makes no sense") as caught:
        ssh_config.look_up("h", home=home)
    assert str(home) in caught.value.problem.hint


def test_match(home: Path) -> None:
    write(home, "Match localnetwork 10.0.0.0/8\n User a\nMatch host h\n Port 7\nMatch host g\n User b\n")
    config = ssh_config.look_up("h", home=home)
    assert config.user != "a"
    assert config.port == 7
    assert ssh_config.look_up("g", home=home).user == "b"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("h", ("h", None)),
        ("u@h:22", ("u@h", 22)),
        ("[::1]:5", ("[::1]", 5)),
        ("ssh://u@h:7/", ("u@h", 7)),
    ],
)
def test_jumps(text: str, found: tuple[str, int | None]) -> None:
    assert ssh_config.split_jump(text) == found


@pytest.mark.parametrize(
    "option",
    [
        *(
            f"ProxyJump {jump}"
            for jump in ("fe80::1", "a,,b", "a,-x", "u@", "h:0", "h:65536", "h:\u0663", "[::1", "h$")
        ),
        f"ProxyJump h:{'9' * 5000}",
        *(f"Port {port}" for port in ("0", "-1", "65536", "\u0663", "9" * 5000, "ssh")),
        *(f"ConnectTimeout {seconds}" for seconds in ("-1", "nan", "inf", "1e300", "x")),
        "Include ~nobodyhasthisname/x",
    ],
)
def test_an_option_that_makes_no_sense(home: Path, option: str) -> None:
    """It is told where to correct it, and is no bug of ours."""
    write(home, f"Host h\n {option}\n")
    with pytest.raises(TransportError, match="makes no sense") as caught:
        ssh_config.look_up("h", home=home)
    assert str(home) in caught.value.problem.hint


@pytest.mark.parametrize("text", ["h", "10.0.0.1", "fe80::1%eth0", "a-b.c_d"])
def test_hosts(text: str) -> None:
    assert host.split(text) == ("", text)
    assert host.split(f"me@{text}") == ("me", text)
    assert host.split("[::1]") == ("", "::1")


@pytest.mark.parametrize("text", ["", "-h", "a b", "a@", "@a", "$(x)", "a;b", "-u@h", "a\nb", "h'"])
def test_no_hosts(text: str) -> None:
    with pytest.raises(UsageError):
        host.split(text)
