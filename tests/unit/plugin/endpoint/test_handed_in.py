"""What a program hands over: what encrypts is refused by its class, whoever has made that."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable

import gevent.ssl
import pytest
from OpenSSL import SSL

from tcpcp import Unsupported
from tcpcp.endpoint import handed_in
from tcpcp.endpoint.handed_in import HasFileno


def of_ssl(sock: socket.socket) -> HasFileno:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).wrap_socket(sock, server_side=True)


def of_gevent(sock: socket.socket) -> HasFileno:
    return gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).wrap_socket(sock, server_side=True)


def of_openssl(sock: socket.socket) -> HasFileno:
    return SSL.Connection(SSL.Context(SSL.TLS_SERVER_METHOD), sock)


@pytest.mark.parametrize("wrap", [of_ssl, of_gevent, of_openssl])
def test_what_encrypts(wrap: Callable[[socket.socket], HasFileno]) -> None:
    """gevent's is no SSLSocket of the standard library, pyOpenSSL's no socket at all."""
    with socket.socket() as sock, contextlib.ExitStack() as stack:
        wrapped = wrap(sock)
        with pytest.raises(Unsupported, match=r"TLS: its keys .*docs/tls.md"):
            handed_in.as_socket(wrapped, stack)
        wrapped.close()  # type: ignore[attr-defined]
