"""Takes the pages of a dump from CRIU and writes only those that have not been sent ahead.

CRIU sends the pages to a *page server* instead of writing images: over a socket that we give it, spliced and
not copied. So memory that was sent ahead is compared as it comes and never written a second time.

On the wire, each message is 32 bytes (command and flags, pages, address, image), after a message that adds
present pages follow those. An image is opened (answered with a byte: no parent), pages are added in ascending
order, and in the end CRIU asks for a status. CRIU's other images are written by CRIU as always.

Source: criu/page-xfer.c struct page_server_iov, page_server_serve(); criu/cr-service.c for ``ps.fd``.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from migrate import limits, threads
from migrate.errors import MAKE_ROOM, CriuError, ImageError, MigrateError
from migrate.memory import sources
from migrate.memory.page_images import PageImages
from migrate.memory.pagemap import PAGE_BYTES, PE_PRESENT, Run
from migrate.memory.rounds import BLOCK_BYTES, Ahead
from migrate.memory.sources import Key
from migrate.watch import nothing

_MESSAGE = struct.Struct("=I4xQQQ")
_COMMAND_BITS, _TYPE_BITS = 16, 8
_OPEN, _ADD, _CLOSE, _FORCE_CLOSE = 4, 6, 0x1023, 0x1024
_NO_PARENT = b"\0"
_DONE, _FAILED = struct.pack("=i", 0), struct.pack("=i", -1)

#: Asked of the kernel so that CRIU does not wait for us at every 200 kB (socket(7); needs CAP_NET_ADMIN).
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_SOCKET_BYTES = 8 << 20


class PageServer:
    """Serves one dump, in a thread of its own from :meth:`start` to :meth:`finish`.

    :param directory: where the pagemap and pages images go.
    :param ahead: what has been sent ahead; its rounds are over.
    :param grew: told the name of each image, after it was made or something was written to its end.
    :ivar client: CRIU's end: to be inherited by CRIU's process, under this number, and then closed here.
    """

    def __init__(self, directory: Path, ahead: Ahead, grew: Callable[[str], None]) -> None:
        self._images = PageImages(directory, ahead, grew)
        self._socket, self.client = socket.socketpair()
        for option in (_SO_SNDBUFFORCE, _SO_RCVBUFFORCE):
            self._socket.setsockopt(socket.SOL_SOCKET, option, _SOCKET_BYTES)
            self.client.setsockopt(socket.SOL_SOCKET, option, _SOCKET_BYTES)
        self._buffer = mmap.mmap(-1, BLOCK_BYTES)
        self._view, self._address = memoryview(self._buffer), sources.address_of(self._buffer)
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="page-server", daemon=True)

    @property
    def written_bytes(self) -> int:
        """Memory that had changed."""
        return self._images.written_bytes

    @property
    def descriptor(self) -> int:
        """See :class:`migrate.memory.Pages`."""
        return self.client.fileno()

    def start(self) -> None:
        """Begin to serve; CRIU has inherited its end."""
        self.client.close()
        threads.start(self._thread)

    def finish(self, timeout_s: float, heed: Callable[[], None] = nothing) -> None:
        """Wait until all images are complete: CRIU has been told so before its ``post-dump``.

        :param heed: called again and again meanwhile.
        :raises MigrateError: they are not; CRIU's dump has failed for the same reason.
        """
        deadline = time.monotonic() + timeout_s
        while self._thread.is_alive() and time.monotonic() < deadline:
            heed()
            self._thread.join(limits.HEED_S)
        if self._thread.is_alive():
            raise CriuError("CRIU did not end its dump of the memory")
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Give up, before CRIU is hung up: a dump that goes on fails, and CRIU lets the tree run.

        Does nothing the second time.
        """
        self.client.close()
        if self._thread.ident is not None and self._socket.fileno() >= 0:
            with contextlib.suppress(OSError):  # CRIU has hung up already
                self._socket.shutdown(socket.SHUT_RDWR)
            self._thread.join()
        self._socket.close()

    def _run(self) -> None:
        try:
            while self._serve():
                pass
        except OSError as error:
            self._fail(CriuError(f"CRIU hung up during the dump: {error.strerror}"))
        except Exception as bug:  # told by finish(), in the thread that can act on it
            self._error = self._error or bug
            self._socket.shutdown(socket.SHUT_RDWR)

    def _serve(self) -> bool:
        """Do what one message asks; False at the end."""
        if not self._fill(memoryview(message := bytearray(_MESSAGE.size))):
            self._fail(CriuError("CRIU hung up during the dump"))
            return False
        command, pages, start, image = _MESSAGE.unpack(message)
        flags, command = command >> _COMMAND_BITS, command & ((1 << _COMMAND_BITS) - 1)
        if command == _OPEN:
            self._end_image()
            with self._noting():
                self._images.open(Key(image & ((1 << _TYPE_BITS) - 1), image >> _TYPE_BITS))
            self._socket.sendall(_NO_PARENT)
        elif command == _ADD:
            self._add(Run(start, pages, flags))
        else:
            if command not in (_CLOSE, _FORCE_CLOSE):
                self._fail(CriuError(f"CRIU sent an unknown command ({command}) with its pages"))
            self._end_image()
            self._socket.sendall(_FAILED if self._error else _DONE)
            return False
        return True

    def _fail(self, error: MigrateError) -> None:
        """Remember the first error; CRIU is listened to until its end, so that it undoes its dump itself."""
        self._error = self._error or error

    def _fill(self, view: memoryview) -> bool:
        while view:
            got = self._socket.recv_into(view, 0, socket.MSG_WAITALL)
            if not got:
                return False
            view = view[got:]
        return True

    def _end_image(self) -> None:
        with self._noting():
            self._images.end()

    @contextlib.contextmanager
    def _noting(self) -> Iterator[None]:
        """What cannot be written is an error of this dump, which goes on to its end."""
        try:
            yield
        except OSError as error:
            self._fail(_unwritable(error))

    def _add(self, run: Run) -> None:
        if not self._images.is_open:
            self._fail(CriuError("CRIU sent pages that belong to no image"))
        if not run.flags & PE_PRESENT:
            self._fail(CriuError("CRIU left pages to a parent that it was not given"))
            return
        start, end = run.start, run.start + run.pages * PAGE_BYTES
        while start < end:
            size = min(BLOCK_BYTES, end - start)
            if not self._fill(self._view[:size]):
                raise ConnectionResetError(0, "in the middle of a page")
            if self._error is None:
                with self._noting():
                    self._images.take(start, run.flags, self._view[:size], self._address)
            start += size


def _unwritable(error: OSError) -> ImageError:
    hint = MAKE_ROOM if error.errno == errno.ENOSPC else ""
    return ImageError(f"cannot write the pages: {error.strerror}", hint=hint)
