"""What this host's podman has against a container that is to come."""

from __future__ import annotations

from collections.abc import Iterator

from migrate.pb.session_pb2 import Container, Refusal
from migrate.processes import oci, podman


def refusals(container: Container) -> Iterator[Refusal]:
    """Yield every reason."""
    here = podman.versions(container.by)
    if not podman.version() or not here:
        missing = container.by if podman.version() else "podman"
        remedy = f"Install it, in the versions of the origin: {container.version}."
        yield Refusal(code="no-runtime", text=f"{missing} is not installed there", remedy=remedy)
        return
    if here != container.version:
        text = f"its runtime is another one: {here}, and {container.version} at the origin"
        yield Refusal(code="runtime-version", text=text, remedy="Install the same versions on both hosts.")
    if (cgroups := oci.cgroups()) != container.cgroups:
        text = f"it has cgroups of {cgroups}, and the origin of {container.cgroups}"
        remedy = "Boot both hosts with the same hierarchy (systemd.unified_cgroup_hierarchy=1 or =0)."
        yield Refusal(code="cgroup-version", text=text, remedy=remedy)
    if not (storage := podman.storage()):
        text = "podman there does not say where it keeps containers"
        yield Refusal(code="container-storage", text=text, remedy="Look there at `podman info`.")
    elif storage != container.storage:
        text = f"its podman keeps containers elsewhere: {storage}, and {container.storage} at the origin"
        remedy = "Have the same driver, graphroot and runroot in storage.conf on both hosts."
        yield Refusal(code="container-storage", text=text, remedy=remedy)
    for name in (container.name, container.id):
        if podman.knows(name):
            text = f"podman has a container {name} there already"
            remedy = f"Remove it there if it is not needed, or rename it: podman rm {name}"
            yield Refusal(code="container-taken", text=text, remedy=remedy)
    yield from _image(container)
    yield from _network(container)


def lacks_image(container: Container) -> bool:
    """Whether its image is to be sent along."""
    return not podman.has_image(container.image)


def _image(container: Container) -> Iterator[Refusal]:
    name = container.image_name
    if (known := podman.image(name)) not in ("", container.image):
        text = f"another image ({known[:12]}) is called {name} there"
        remedy = f"Take that name from it there, if it is not needed: podman untag {known[:12]} {name}"
        yield Refusal(code="image-differs", text=text, remedy=remedy)
    if lacks_image(container) and not container.sends_image:
        text = f"the image {name} ({container.image[:12]}) is not there"
        remedy = f"Send it: podman save {name} | ssh THERE podman load"
        yield Refusal(code="no-image", text=text, remedy=remedy)


def _network(container: Container) -> Iterator[Refusal]:
    for name in container.networks:
        if not podman.said("network", "inspect", name):
            remedy = (
                f"Make one there, on the same wire and with the same subnet: podman network create {name}"
            )
            yield Refusal(code="no-network", text=f"podman has no network {name} there", remedy=remedy)
    known = podman.inspect(*podman.said("ps", "--all", "--quiet").split())
    for one in known:
        if taken := sorted(set(container.addresses) & set(podman.addresses(one))):
            text = f"container {one.get('Name')} has the address {', '.join(taken)} there"
            yield Refusal(
                code="address-taken", text=text, remedy=f"Remove it there: podman rm {one.get('Name')}"
            )
