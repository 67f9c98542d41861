"""What docs/tls.md says: TLS is not passed with its connection, and the two ways round that are shown here."""

from __future__ import annotations

import contextlib
import datetime
import http.client
import os
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from netns import Hosts, eventually
from passing import pass_on

#: TLS record type of application data, and the version that stands in every record (RFC 8446 section 5.1).
APPLICATION_DATA = b"\x17\x03\x03"
BODY = os.urandom(200_000)
NGINX = """
daemon off;
user root;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections 20; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    server {{
        listen 127.0.0.1:8443 ssl;
        ssl_certificate {directory}/certificate.pem;
        ssl_certificate_key {directory}/key.pem;
        location / {{ proxy_pass http://{backend}; proxy_buffering off; }}
    }}
}}
"""


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with key.pem and certificate.pem, of localhost."""
    directory = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(
        now + datetime.timedelta(days=1)
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (directory / "key.pem").write_bytes(private)
    (directory / "certificate.pem").write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(pem))
    return directory


@contextlib.contextmanager
def beside(work: object, *arguments: object) -> Iterator[None]:
    """*work* in a thread of its own, which ends with the block."""
    thread = threading.Thread(target=work, args=arguments)  # type: ignore[arg-type]
    thread.start()
    yield
    thread.join(10)
    assert not thread.is_alive()


def encrypted(hosts: Hosts, identity: Path) -> tuple[ssl.SSLSocket, ssl.SSLSocket]:
    """A TLS connection: our end, the server's, and the peer's."""
    sock, peer = hosts.connect()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(identity / "certificate.pem", identity / "key.pem")
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    wrapped = client.wrap_socket(peer, do_handshake_on_connect=False)
    with beside(wrapped.do_handshake):
        ours = server.wrap_socket(sock, server_side=True)
    return ours, wrapped


def test_the_socket_below_tls_looks_like_any_other(hosts: Hosts, identity: Path) -> None:
    """It is passed, as what asyncio gives of a TLS transport would be; its new owner gets what it cannot read."""
    ours, peer = encrypted(hosts, identity)
    below = socket.socket(fileno=ours.detach())
    _, made = pass_on(hosts, below)
    peer.sendall(b"a secret")
    received = made.recv(1000)
    assert received.startswith(APPLICATION_DATA)
    assert b"secret" not in received
    made.sendall(b"in clear")
    with pytest.raises(ssl.SSLError):
        peer.recv(1000)


def test_after_unwrap_the_connection_can_be_passed(hosts: Hosts, identity: Path) -> None:
    """Both say that TLS ends (close_notify); what unwrap() returns is still of the class SSLSocket."""
    ours, peer = encrypted(hosts, identity)
    ours.sendall(b"under TLS")
    assert peer.recv(100) == b"under TLS"
    with beside(peer.unwrap):
        ended = ours.unwrap()
    plain = socket.socket(fileno=ended.detach())
    theirs = socket.socket(fileno=peer.detach())
    theirs.sendall(b"before")
    _, made = pass_on(hosts, plain)
    assert made.recv(100) == b"before"
    made.sendall(b"after")
    assert theirs.recv(100) == b"after"


@contextlib.contextmanager
def front(hosts: Hosts, identity: Path, backend: str) -> Iterator[None]:
    """nginx on the peer's host ends TLS there, and asks *backend* in clear."""
    (identity / "nginx.conf").write_text(NGINX.format(directory=identity, backend=backend))
    with hosts.there.entered():
        nginx = subprocess.Popen(["nginx", "-p", identity, "-c", identity / "nginx.conf"])
        try:
            eventually((identity / "nginx.pid").exists, "nginx is up")
            yield
        finally:
            nginx.terminate()
            nginx.wait(10)


def test_behind_a_front_the_plain_connection_is_passed(hosts: Hosts, identity: Path) -> None:
    """In the middle of an answer; the client's TLS connection goes on, for it ends at the front."""
    if shutil.which("nginx") is None:
        pytest.skip("needs nginx")
    got: list[bytes] = []
    with hosts.here.entered():
        listener = socket.create_server((hosts.here_ip[4], 8080))
    with front(hosts, identity, f"{hosts.here_ip[4]}:8080"), beside(download, hosts, identity, got):
        sock, _ = listener.accept()
        assert sock.recv(10_000).startswith(b"GET /")
        head = f"HTTP/1.0 200 OK\r\nContent-Length: {len(BODY)}\r\n\r\n"
        sock.sendall(head.encode() + BODY[:100_000])
        _, made = pass_on(hosts, sock)
        made.setblocking(True)
        made.sendall(BODY[100_000:])
        made.close()
    assert got == [BODY]


def download(hosts: Hosts, identity: Path, got: list[bytes]) -> None:
    """A client beside the front, which trusts its certificate."""
    context = ssl.create_default_context(cafile=identity / "certificate.pem")
    context.check_hostname = False
    with hosts.there.entered():
        client = http.client.HTTPSConnection("127.0.0.1", 8443, context=context, timeout=10)
        client.request("GET", "/")
        got.append(client.getresponse().read())
        client.close()
