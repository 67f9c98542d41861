"""A box for Vagrant with libvirt, made of the machines' root file system: ``python -m migrate.lab.vm.box [FILE]``.

For where public boxes cannot be had. It has no boot loader: libvirt boots the kernel and the first file system that
lie in the cache, which the box's own Vagrantfile names, so it is good on this machine alone.
Source: vagrant-libvirt's documentation of its box format.
"""

import contextlib
import io
import json
import shutil
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

from migrate.lab.errors import LabError
from migrate.lab.vm import accelerator, cache, debian, disks, kernels, root

DEFAULT = cache.CACHE / "migrate-lab.box"
#: What Vagrant is to call it.
NAME = "migrate-lab"
SIZE_BYTES = 3 << 30
METADATA = {"provider": "libvirt", "format": "qcow2", "virtual_size": SIZE_BYTES >> 30}
#: The public half of Vagrant's well-known key, by which it comes into a new machine, to give it another one.
#: Source: Vagrant, keys/vagrant.pub.
KEY = Path(__file__).with_name("vagrant.pub")
NETWORK = "[Match]\nName=eth0\n[Network]\nDHCP=yes\n"
WORDS = "console=ttyS0 quiet audit=0 mitigations=off net.ifnames=0 panic=-1 lab.alone lab.init=/sbin/init"
#: QEMU 7.2's TCG: see qemu.py.
PROCESSORS = {
    "kvm": 'libvirt.driver = "kvm"',
    "tcg": 'libvirt.driver = "qemu"\n    libvirt.cpu_mode = "custom"\n    libvirt.cpu_model = "qemu64"\n'
    '    libvirt.cpu_feature name: "cx16", policy: "disable"',
}
VAGRANTFILE = """Vagrant.configure("2") do |config|
  config.vm.provider :libvirt do |libvirt|
    libvirt.disk_bus = "virtio"
    {processor}
    libvirt.kernel = "{kernel.image}"
    libvirt.initrd = "{kernel.first}"
    libvirt.cmd_line = "{words}"
  end
end
"""


def make(file: Path) -> None:
    """Make the box *file*, one at a time. :raises LabError: it cannot be made; an older one is left."""
    if not root.is_built():
        cache.need_room()
    image, kernel = root.root(), kernels.kernel()
    chosen = accelerator.accelerator(kernel)
    with _working(file) as work:
        tree = work / "tree"
        cache.run(["cp", "-a", "--reflink=auto", image / "tree", tree])
        _furnish(tree, kernel.release)
        disks.make(tree, work / "raw", "root", SIZE_BYTES)
        shutil.rmtree(tree)
        cache.run(["qemu-img", "convert", "-O", "qcow2", work / "raw", work / "box.img"])
        _pack(work, VAGRANTFILE.format(processor=PROCESSORS[chosen], kernel=kernel, words=WORDS))
        (work / "box").rename(file)


@contextlib.contextmanager
def _working(file: Path) -> Iterator[Path]:
    """A directory beside *file* to make it in, empty and ours alone; what one that was killed left is removed."""
    with cache.locked("box.lock"):
        work = file.with_name(file.name + ".work")
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _furnish(tree: Path, release: str) -> None:
    """What Vagrant needs of a machine: modules within it, its user, its network, and a name that resolves."""
    modules = tree / "usr/lib/modules"
    unpacked = tree / "tmp/kernel"
    debian.Packages().unpack(f"linux-image-{release}", unpacked)
    old, new = unpacked / "lib/modules", unpacked / "usr/lib/modules"
    cache.run(["cp", "-a", old if old.exists() else new, modules])
    shutil.rmtree(unpacked)
    cache.run(["depmod", "-b", tree, release])
    cache.run(["chroot", tree, "useradd", "-m", "-s", "/bin/bash", "vagrant"])
    _write(tree / "etc/sudoers.d/vagrant", "vagrant ALL=(ALL) NOPASSWD: ALL\n", 0o440)
    _write(tree / "home/vagrant/.ssh/authorized_keys", KEY.read_text(), 0o600)
    cache.run(["chroot", tree, "chown", "-R", "vagrant:vagrant", "/home/vagrant"])
    _write(tree / "etc/systemd/network/50-vagrant.network", NETWORK, 0o644)
    _write(tree / "etc/hosts", "127.0.0.1 localhost\n127.0.1.1 migrate-lab\n::1 localhost\n", 0o644)
    _write(tree / "etc/hostname", "migrate-lab\n", 0o644)
    _write(tree / "etc/ssh/sshd_config.d/vagrant.conf", "UseDNS no\n", 0o644)
    cache.run(["chroot", tree, "ssh-keygen", "-A"])
    cache.run(["chroot", tree, "systemctl", "-q", "enable", "ssh", "systemd-networkd"])


def _write(path: Path, text: str, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def _pack(work: Path, vagrantfile: str) -> None:
    """Put the box together; not compressed, since it is made to be unpacked here."""
    with tarfile.open(work / "box", "w") as box:
        for name, text in (("metadata.json", json.dumps(METADATA)), ("Vagrantfile", vagrantfile)):
            member = tarfile.TarInfo(name)
            member.size = len(text)
            box.addfile(member, io.BytesIO(text.encode()))
        box.add(work / "box.img", "box.img")


def main() -> int:
    """The command."""
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT
    try:
        with cache.filling():
            make(file.absolute())
    except LabError as error:
        print(f"vagrant-box: {error}", file=sys.stderr)
        return 1
    print(f"vagrant-box: {file}, {file.stat().st_size >> 20} MB; what comes next:")
    print(f"vagrant box add --name {NAME} {file}")
    print(f"VAGRANT_BOX={NAME} vagrant up --provider libvirt")
    return 0


if __name__ == "__main__":
    sys.exit(main())
