"""Makes file systems in files, from directories and without mounting anything."""

import os
from pathlib import Path

from migrate.lab.vm import cache

#: What mkfs.ext4 of today switches on and kernels of yesterday do not know.
_FEATURES = "^orphan_file,^metadata_csum_seed"
_SPARE_BYTES = 32_000_000
_BLOCK_BYTES = 4096
#: Of each disk that is written to: much more than a qcow2 needs beside the data, 12 bytes for 64 KB.
_BESIDE_BYTES = 16 << 20


def make(directory: Path, image: Path, label: str, size_bytes: int | None = None) -> None:
    """Make *image*, an ext4 with the content of *directory*.

    :param size_bytes: of the file system; None: what the content needs. The file is sparse.
    :raises LabError: it does not fit.
    """
    size = size_bytes or _needed(directory)
    command = ["mkfs.ext4", "-q", "-F", "-L", label, "-m", "0", "-O", _FEATURES]
    cache.run([*command, "-d", directory, image, f"{size // 1024}k"])


def most(size_bytes: int) -> int:
    """Return how large a qcow2 for a disk of *size_bytes* can become: what its machine can have written in all."""
    return size_bytes + _BESIDE_BYTES


def _needed(directory: Path) -> int:
    """Bytes of a file system that has room for *directory*, inodes and journal included."""
    total = _SPARE_BYTES
    for folder, _, names in os.walk(directory):
        total += _BLOCK_BYTES
        for name in names:
            size = Path(folder, name).lstat().st_size
            total += (size // _BLOCK_BYTES + 1) * _BLOCK_BYTES
    return total + total // 8
