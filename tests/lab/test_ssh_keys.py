"""Keys of the host and of the user, against real sshds on the loopback device."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from ssh_server import DEADLINE_S, Server, keygen, public_of, refused, ssh_agent

pytestmark = pytest.mark.skipif(shutil.which("sshd") is None, reason="no sshd installed")


def test_unknown_key_is_refused_with_the_command_that_adds_it(server: Server) -> None:
    server.known_hosts.unlink()
    error = refused(server)
    assert f"the host key of [127.0.0.1]:{server.port} is unknown" in str(error)
    listed = subprocess.run(
        ["ssh-keygen", "-lf", str(server.directory / "host_key.pub")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert listed.stdout.split()[1] in str(error)
    assert not server.known_hosts.exists()
    command = next(part for part in error.problem.hint.split("`") if part.startswith("ssh-keyscan"))
    subprocess.run(["sh", "-c", command], check=True, timeout=DEADLINE_S, stderr=subprocess.DEVNULL)
    server.connect().close()


def test_changed_key_is_refused_distinctly(server: Server) -> None:
    keygen(server.directory / "other")
    server.know(server.directory / "other.pub")
    error = refused(server)
    assert "has changed" in str(error)
    assert f"{server.known_hosts}:1" in str(error)
    command = next(part for part in error.problem.hint.split("`") if part.startswith("ssh-keygen"))
    subprocess.run(["sh", "-c", command], check=True, timeout=DEADLINE_S, capture_output=True)
    assert "is unknown" in str(refused(server))


def test_lax_configuration_does_not_weaken_the_check(server: Server) -> None:
    (server.ssh / "config").write_text("StrictHostKeyChecking no\n")
    server.known_hosts.unlink()
    assert "is unknown" in str(refused(server))


def test_revoked_key(server: Server) -> None:
    server.known_hosts.write_text(server.known_hosts.read_text() + "@revoked * " + public_of(server) + "\n")
    assert "is revoked" in str(refused(server))


def test_hashed_names(server: Server) -> None:
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(server.known_hosts)], check=True, capture_output=True)
    assert "127.0.0.1" not in server.known_hosts.read_text()
    server.connect().close()


def test_wrong_key_says_which_were_tried(server: Server) -> None:
    keygen(server.directory / "stranger")
    shutil.copy(server.directory / "stranger.pub", server.authorized)
    error = refused(server)
    assert f"{server.ssh / 'id_ed25519'}: refused" in str(error)
    assert "authorized_keys" in error.problem.hint
    server.connect(identity=str(server.directory / "stranger")).close()


def test_no_key_at_all(server: Server) -> None:
    (server.ssh / "id_ed25519").unlink()
    assert "there is no key to try" in str(refused(server))


def test_key_with_a_passphrase_is_not_asked_for_but_taken_from_the_agent(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = server.ssh / "id_ed25519"
    with ssh_agent(server.directory / "sock", monkeypatch):
        subprocess.run(["ssh-add", str(key)], check=True, capture_output=True, timeout=DEADLINE_S)
        words = ["ssh-keygen", "-q", "-p", "-P", "", "-N", "secret", "-f", str(key)]
        subprocess.run(words, check=True, capture_output=True, timeout=DEADLINE_S)
        server.connect().close()
        (server.ssh / "config").write_text("IdentitiesOnly yes\n")
        server.connect().close()
        subprocess.run(["ssh-add", "-D"], check=True, capture_output=True, timeout=DEADLINE_S)
        assert "needs a passphrase: `ssh-add" in str(refused(server))


def test_key_that_others_may_read_is_not_used(server: Server) -> None:
    (server.ssh / "id_ed25519").chmod(0o644)
    assert "chmod 600" in str(refused(server))
