"""CRIU's images are completed with the ICIs of their connections, on the destination.

Source: CRIU's images/inventory.proto, fdinfo.proto, sk-inet.proto, tcp-stream.proto; :mod:`tcpcp.criu.images`.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable
from pathlib import Path

from tcpcp.criu import images
from tcpcp.endpoint import (
    host,
    restored,
)
from tcpcp.kernel.writing import write_all
from tcpcp.record import checks, codec
from tcpcp.record.ici import Endpoint, Ici, State

_ANY_IPV4 = ipaddress.IPv4Address(0)


class Completion:
    """Completes CRIU's images with the connections, while these arrive.

    :param directory: of the images.
    :param teach: give images the bytes with which :func:`tcpcp.criu.stages.finish` teaches a connection its
        round-trip time; where the path to the peers is the same, and at most for as many connections as
        :data:`tcpcp.criu.stages.MOST_FED`.
    :ivar icis: the connections so far.
    """

    def __init__(self, directory: Path, *, teach: bool = False) -> None:
        self.icis: list[Ici] = []
        self._directory, self._teach = directory, teach
        self._rest = bytearray()
        self._limits = host.limits_for_criu()

    def take(self, data: bytes) -> None:
        """Take the next bytes of ICI records, which need not end with one.

        :raises CodecError: they are malformed.
        :raises IciError: an ICI that makes no sense, or that this host cannot take (paper 7.1).
        """
        self._rest += data
        whole = codec.whole_records(self._rest)
        fresh = list(codec.loads_many(bytes(self._rest[:whole])))
        del self._rest[:whole]
        self.take_all(fresh)

    def take_all(self, fresh: list[Ici]) -> None:
        """Take the next connections. :raises IciError: as :meth:`take`."""
        self._check(fresh)
        where = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for ici in fresh:
                stream = images.tcp_stream(ici, more=restored.bytes_to_teach(ici) if self._teach else 0)
                _write(where, images.tcp_stream_name(ici.tag), stream)
        finally:
            os.close(where)
        self.icis += fresh

    def _check(self, icis: list[Ici]) -> None:
        for ici in icis:
            checks.check(ici, self._limits)

    def finish(self, closed: Iterable[int] = ()) -> list[Ici]:
        """Complete the other images, which have arrived.

        :param closed: inodes of sockets that have no connection any more, or never had one.
        :return: the ICIs.
        :raises CodecError: an image is malformed, or CRIU's images and the ICIs do not belong together.
        """
        list(codec.loads_many(bytes(self._rest)))  # says what is missing of the last one
        inventory, files = self._directory / "inventory.img", self._directory / "files.img"
        inventory.write_bytes(images.patch_inventory(inventory.read_bytes()))
        states = {ici.tag: ici.state for ici in self.icis}
        files.write_bytes(images.patch_files(files.read_bytes(), states, frozenset(closed)))
        return self.icis


def _write(directory: int, name: str, data: bytes) -> None:
    """As ``Path.write_bytes``, in half of its time, which for thousands of small files counts."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    descriptor = os.open(name, flags, 0o666, dir_fd=directory)
    try:
        write_all(descriptor, data)
    finally:
        os.close(descriptor)


def listeners_of_images(directory: Path) -> list[Endpoint]:
    """Where the listening sockets of the images will be bound; a dual-stack one counts for both families."""
    found = []
    for one in images.inet_sockets((directory / "files.img").read_bytes(), State.LISTEN):
        found.append(one.local)
        if one.ipv6 and not one.ipv6_only and one.local.ip.is_unspecified:
            found.append(Endpoint(_ANY_IPV4, one.local.port))
    return found
