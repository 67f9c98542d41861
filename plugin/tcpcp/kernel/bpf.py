"""bpf(2), as far as `congestion_state` and `kernel_fields` need it, and what the kernel's structs look like.

Source: bpf(2), include/uapi/linux/bpf.h union bpf_attr; Documentation/bpf/btf.rst.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tcpcp.errors import KernelError

_BTF = Path("/sys/kernel/btf/vmlinux")
_NUMBERS = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "s390x": 351, "ppc64le": 361, "loongarch64": 280}
_MAP_CREATE, _MAP_UPDATE, _PROG_LOAD, _PROG_RUN, _BTF_LOAD, _LINK_CREATE = 0, 2, 5, 10, 18, 28
_GET_INFO = 15
_MAP_TYPE_ARRAY, _MAP_TYPE_STRUCT_OPS = 2, 26
_PROG_TYPE_STRUCT_OPS, _PROG_TYPE_SYSCALL = 27, 31
_F_LINK, _F_SLEEPABLE, _ATTACH_STRUCT_OPS = 1 << 13, 1 << 4, 44
#: Long enough for every command used here; the kernel takes what is behind for 0.
_ATTR_BYTES = 160

#: Errors that say nothing of the next time.
PASSING = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EINTR})

#: BTF of the type int: header, one type of kind 1 with 32 bits, two strings.
_ONE_TYPE = struct.pack("=HBBIIIII3II5s", 0xEB9F, 1, 0, 24, 0, 16, 16, 5, 1, 1 << 24, 4, 32, b"\0int\0")

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall


class Offsets(dict[str, int]):
    """Member -> where it is, bytes; to ask for one that this kernel has not is a KernelError, ENOENT."""

    def __missing__(self, name: str) -> int:
        raise KernelError(f"BTF of member {name}", errno.ENOENT)


@dataclass(frozen=True, slots=True)
class Struct:
    """A struct of the running kernel.

    :ivar offsets: of its members, bytes, in the order of declaration.
    """

    number: int
    size: int
    offsets: Offsets


def structs(names: Iterable[str]) -> dict[str, Struct]:
    """The structs *names* of the running kernel, from its BTF; takes up to 70 ms.

    :raises KernelError: ENOENT, the kernel says nothing of its types, or has none of that name.
    """
    try:
        data = _BTF.read_bytes()
    except OSError as exc:
        raise KernelError(f"open({_BTF})", exc.errno or errno.ENOENT) from exc
    return structs_in(data, names)


def structs_in(data: bytes, names: Iterable[str]) -> dict[str, Struct]:
    """As :func:`structs`, from BTF as it is in *data*.

    :raises KernelError: ENOENT, there is none of that name; EBADMSG, it is malformed.
    """
    names = list(names)
    try:
        header, types, _, strings, _ = struct.unpack_from("=4x5I", data)
        base = header + strings
        wanted = {data.find(b"\0" + name.encode() + b"\0", base) + 1 - base: name for name in names}
        found = dict(_find(data, header + types, base, wanted))
    except (struct.error, ValueError) as exc:
        raise KernelError(f"BTF of struct {', '.join(names)}", errno.EBADMSG) from exc
    if missing := set(names) - found.keys():
        raise KernelError(f"BTF of struct {', '.join(sorted(missing))}", errno.ENOENT)
    return found


#: Kind -> bytes behind the first 12 of a type: fixed, and for each of its members.
_BEHIND = {1: (4, 0), 3: (12, 0), 4: (0, 12), 5: (0, 12), 6: (0, 8), 13: (0, 8), 14: (4, 0), 15: (0, 12)}
_BEHIND |= {17: (4, 0), 19: (0, 12)}
_KIND_STRUCT = 4
_TYPE = struct.Struct("=3I")


def _find(data: bytes, place: int, base: int, wanted: dict[int, str]) -> Iterator[tuple[str, Struct]]:
    number, read, left = 1, _TYPE.unpack_from, len(wanted)
    while left and place < base:
        name, info, size = read(data, place)
        kind, members = info >> 24 & 31, info & 0xFFFF
        if name in wanted and kind == _KIND_STRUCT:
            yield wanted[name], Struct(number, size, _members(data, place + 12, members, base))
            left -= 1
        fixed, each = _BEHIND.get(kind, (0, 0))
        place += 12 + fixed + each * members
        number += 1


def _members(data: bytes, place: int, count: int, base: int) -> Offsets:
    offsets = Offsets()
    for name, _, bits in _TYPE.iter_unpack(data[place : place + 12 * count]):
        text = data[base + name : data.index(b"\0", base + name)].decode()
        offsets[text] = (bits & 0xFFFFFF) // 8
    return offsets


def instruction(code: int, to: int = 0, source: int = 0, offset: int = 0, value: int = 0) -> bytes:
    """struct bpf_insn; *to* and *source* are numbers of registers."""
    both = to | source << 4 if sys.byteorder == "little" else to << 4 | source
    return struct.pack("=BBhi", code, both, offset, value)


def array(size_bytes: int) -> int:
    """A map that holds one value; its descriptor."""
    return _call(_MAP_CREATE, "array", struct.pack("=5I", _MAP_TYPE_ARRAY, 4, size_bytes, 1, 0))


def operations(kind: Struct) -> int:
    """A map that holds one struct of operations, *kind*, for :func:`link`; its descriptor.

    The kernel wants types of ours beside it (kernel/bpf/syscall.c map_create()), and does not look at them.
    """
    head = struct.pack("=5I", _MAP_TYPE_STRUCT_OPS, 4, kind.size, 1, _F_LINK).ljust(48, b"\0")
    types = ctypes.create_string_buffer(_ONE_TYPE, len(_ONE_TYPE))
    ours = _call(_BTF_LOAD, "types", struct.pack("=QQI", ctypes.addressof(types), 0, len(_ONE_TYPE)))
    try:
        return _call(_MAP_CREATE, "struct_ops", head + struct.pack("=4I", ours, 0, 0, kind.number))
    finally:
        os.close(ours)


def load(operations_: Struct, member: int, program: bytes) -> int:
    """Load *program* to be the member of that position in a struct of operations; its descriptor."""
    return _load(_PROG_TYPE_STRUCT_OPS, member, operations_.number, program)


def syscall_program(program: bytes) -> int:
    """Load *program*, which runs when a :class:`Call` of it does, in the calling thread; its descriptor."""
    return _load(_PROG_TYPE_SYSCALL, 0, 0, program, _F_SLEEPABLE)


class Call:
    """What it takes to run a program of :func:`syscall_program` again and again; of one thread.

    :param context: what the program finds at the address in register 1, and may write to.
    """

    def __init__(self, program: int, context: ctypes.Array[ctypes.c_char]) -> None:
        self._context = context
        size = ctypes.sizeof(context)
        attr = struct.pack("=4I2Q4IQ", program, 0, 0, 0, 0, 0, 0, 0, size, 0, ctypes.addressof(context))
        buffer = ctypes.create_string_buffer(attr, _ATTR_BYTES)
        # Made once: to convert the arguments takes as long as the call.
        self._arguments = (
            ctypes.c_long(_NUMBERS[platform.machine()]),
            ctypes.c_int(_PROG_RUN),
            ctypes.byref(buffer),
            ctypes.c_uint(_ATTR_BYTES),
        )

    def run(self) -> None:
        """Run the program.

        :raises KernelError: it could not be run.
        """
        if _syscall(*self._arguments):
            raise KernelError("bpf(run)", ctypes.get_errno())


def _load(kind: int, attach: int, number: int, program: bytes, flags: int = 0) -> int:
    code, rights = ctypes.create_string_buffer(program), ctypes.create_string_buffer(b"GPL")
    attr = struct.pack("=IIQQ", kind, len(program) // 8, ctypes.addressof(code), ctypes.addressof(rights))
    attr = attr.ljust(44, b"\0") + struct.pack("=I", flags)
    attr = attr.ljust(68, b"\0") + struct.pack("=I", attach)
    return _call(_PROG_LOAD, "program", attr.ljust(108, b"\0") + struct.pack("=I", number))


def update(map_: int, value: bytes) -> None:
    """Store *value* in a map that holds one."""
    key, content = ctypes.create_string_buffer(4), ctypes.create_string_buffer(value, len(value))
    _call(
        _MAP_UPDATE,
        "update",
        struct.pack("=IxxxxQQQ", map_, ctypes.addressof(key), ctypes.addressof(content), 0),
    )


def link(map_: int) -> int:
    """Register the operations in *map_* until the descriptor returned is closed; also by our end."""
    return _call(_LINK_CREATE, "link", struct.pack("=IIII", map_, 0, _ATTACH_STRUCT_OPS, 0))


def _call(command: int, what: str, attr: bytes) -> int:
    number = _NUMBERS.get(platform.machine())
    if number is None:
        raise KernelError(f"bpf({what})", errno.ENOSYS)
    buffer = ctypes.create_string_buffer(attr, _ATTR_BYTES)
    result = int(_libc.syscall(number, command, buffer, _ATTR_BYTES))
    if result < 0:
        raise KernelError(f"bpf({what})", ctypes.get_errno())
    return result


#: Longer than what the kernel says of any object; the rest stays 0.
_INFO_BYTES = 1024


def identity(descriptor: int) -> bytes:
    """Bytes that no other object of BPF has while this machine runs; b"" for what is none, or is not told.

    How long the description is tells maps, programs and links apart, and it begins with type and number.
    """
    info = ctypes.create_string_buffer(_INFO_BYTES)
    attr = struct.pack("=IIQ", descriptor, _INFO_BYTES, ctypes.addressof(info))
    buffer = ctypes.create_string_buffer(attr, _ATTR_BYTES)
    if _syscall(_NUMBERS.get(platform.machine(), -1), _GET_INFO, buffer, _ATTR_BYTES):
        return b""
    return buffer.raw[4:8] + info.raw[:8]
