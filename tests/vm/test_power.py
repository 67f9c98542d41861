"""The power of one of the two is cut in the middle of a move, or the link between them: it runs in one place."""

from __future__ import annotations

from harness.wait import eventually
from kills import Bench, Migration

from migrate.lab.vm.lab import VmLab

SERVER = "numbered.py serve"


def servers(lab: VmLab) -> dict[str, int]:
    """How many servers run, not stopped and not frozen, on each host that is on."""
    script = "ps -e -ww -o stat=,args= | grep '[n]umbered.py serve' | grep -cv '^[TD]'; true"
    return {
        name: int(lab.hosts[name].exec(["sh", "-c", script]).stdout) for name in ("origin", "destination")
    }


def test_destination_before_commit(lab: VmLab, loaded: Bench) -> None:
    """It goes on at the origin, and a destination that comes back knows nothing of it."""
    bench = loaded.ready()
    migration = Migration(bench, "RESTORED")
    lab.power_off("destination")
    migration.go()
    status, report = migration.end()
    assert (status, report["outcome"]) == (4, "ROLLED_BACK"), report
    bench.assert_streams()
    lab.power_on("destination")
    assert servers(lab) == {"origin": 1, "destination": 0}
    bench.assert_streams()
    bench.at = "origin"


def test_link_cut_by_the_hypervisor(lab: VmLab, loaded: Bench) -> None:
    """Not a packet between the two, in neither direction, from the restore on: rolled back on both."""
    bench = loaded.ready()
    migration = Migration(bench, "RESTORED")
    lab.link("destination0", False)
    try:
        migration.go()
        status, report = migration.end()
        assert (status, report["outcome"]) == (4, "ROLLED_BACK"), report
        bench.assert_streams()
        eventually(lambda: servers(lab) == {"origin": 1, "destination": 0}, "undone on the destination")
    finally:
        lab.link("destination0", True)
    bench.assert_streams()
    bench.at = "origin"


def test_origin_before_commit(lab: VmLab, loaded: Bench) -> None:
    """It is lost with its host, as without a move: what was built on the destination does not come to life."""
    bench = loaded.ready()
    Migration(bench, "RESTORED")
    lab.power_off("origin")
    destination = lab.hosts["destination"]
    eventually(
        lambda: not destination.exec(["pgrep", "-f", SERVER], check=False).stdout, "undone on the destination"
    )
    lab.power_on("origin")
    assert servers(lab) == {"origin": 0, "destination": 0}
    bench.drive.close()
    bench.pid = 0


def test_origin_after_activation(lab: VmLab, loaded: Bench) -> None:
    """It runs on the destination, its peers go on, and the origin's boot starts no second one."""
    bench = loaded.ready()
    Migration(bench, "ACTIVATED")
    lab.power_off("origin")
    bench.assert_streams()
    lab.power_on("origin")
    # A machine that boots has the addresses of its configuration; an administrator would have moved the service's.
    for ip, bits in zip(lab.service, (24, 64), strict=True):
        lab.hosts["origin"].exec(["ip", "address", "del", f"{ip}/{bits}", "dev", "eth0"])
    for host in ("gateway", "peer"):
        lab.hosts[host].exec(["ip", "neigh", "flush", "all"])
    assert servers(lab) == {"origin": 0, "destination": 1}
    bench.assert_streams()
    recovered = lab.hosts["destination"].exec(["migrate", "--recover"], check=False).stdout
    print(recovered)
    bench.at = "destination"
