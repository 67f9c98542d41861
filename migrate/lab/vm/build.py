"""Bringing a lab of machines up: what is kept is made if it is missing, then a segment, then all machines."""

from pathlib import Path

from migrate.lab import network as host_network
from migrate.lab import sshd, state, topology
from migrate.lab.build import generate_keys
from migrate.lab.errors import bringing_up
from migrate.lab.host import PROJECT, Builder, make_spec
from migrate.lab.state import Init
from migrate.lab.vm import (
    accelerator,
    cache,
    disks,
    kernels,
    network,
    processors,
    project,
    qemu,
    root,
    seed,
    segment,
)
from migrate.lab.vm.machines import DISKS, RUN, Machines, outside
from migrate.lab.vm.wish import Wish


def build(name: str, wish: Wish, directory: Path, deadline: float) -> None:
    """Build lab *name* in its empty run directory, and save its state there.

    :param deadline: on the monotonic clock; what has to be downloaded has limits of its own.
    :raises LabError: no machine of it lives on. Nor does one if this process is killed meanwhile.
    """
    qemu.words(seed.INIT, PROJECT)  # Refused at once, not after the minutes that an image takes.
    with cache.filling():
        prepared, images, chosen = _prepare(wish)
    spec = make_spec(name, topology.SEGMENT, directory, {})
    spec = spec._replace(binds=[*spec.binds, str(cache.CACHE)])
    builder = Builder(spec, deadline)
    try:
        with bringing_up(name):
            init = builder.init()
            host_network.inside(init.pid, segment.make)
            builder.wait_ready()
            machines = Machines(directory, init)
            machines.make_room(disks.most(root.SIZE_BYTES), len(topology.HOSTS))
            described = _describe(wish, directory, init, prepared, images, chosen)
            machines.describe(described, wish.kernels)
            for host in topology.HOSTS:
                machines.power_on(host)
            for host in topology.HOSTS:
                machines.wait_ready(host)
            state.save(directory, {topology.SEGMENT: init})
            builder.go()
    finally:
        builder.close()


def _prepare(wish: Wish) -> tuple[dict[str, kernels.Kernel], dict[str, Path], str]:
    """What of a lab is kept between labs: kernels and images by host, and the accelerator."""
    if not root.is_built():
        cache.need_room()
    chosen = accelerator.accelerator(kernels.kernel())
    processors.check(wish, chosen)  # Before the minutes that an image takes.
    prepared, images = {}, {}
    for host in topology.HOSTS:
        architecture = wish.architectures.get(host, qemu.OWN)
        prepared[host] = kernels.kernel(wish.kernels.get(host, kernels.DEFAULT), architecture)
        images[host] = root.of(architecture) / "image"
    return prepared, images, chosen


def _describe(
    wish: Wish,
    directory: Path,
    init: Init,
    prepared: dict[str, kernels.Kernel],
    images: dict[str, Path],
    chosen: str,
) -> dict[str, qemu.Machine]:
    """Write each machine's files into the segment; return what the machines are made of."""
    project.make(outside(init, RUN / "project"), outside(init, RUN / "project.disk"))
    user_key, host_keys = generate_keys(directory)
    described = {}
    for host in topology.HOSTS:
        run, kernel, architecture = RUN / host, prepared[host], wish.architectures.get(host, qemu.OWN)
        outside(init, run).mkdir()
        archive = seed.archive(host, sshd.files(host, user_key, host_keys))
        outside(init, run / "first").write_bytes(kernel.first.read_bytes() + archive)
        overlay = outside(init, DISKS / host)
        cache.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", images[host], overlay])
        described[host] = qemu.Machine(
            name=host,
            kernel=kernel.image,
            first=run / "first",
            words=qemu.words(seed.SYSTEMD if wish.systemd else seed.INIT, PROJECT, architecture),
            disks=((DISKS / host, True), (kernel.modules, False), (RUN / "project.disk", False)),
            taps=tuple(network.taps(host)),
            run=run,
            accelerator=chosen if architecture == qemu.OWN else "tcg",
            architecture=architecture,
            cpu=wish.cpus.get(host, ""),
            image=images[host],
            clock_s=wish.clocks.get(host, 0),
        )
    return described
