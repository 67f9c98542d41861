"""How a migration ends that was killed: one copy of the server runs, or a person decides which one."""

from __future__ import annotations

from kills import Bench, Migration

BEFORE = ["CHECKED", "FROZEN", "DUMPED", "ISOLATED", "STREAMED", "RESTORED", "SWITCHED"]
AFTER = ["COMMITTED", "ACTIVATED"]


def untouched_or_rolled_back(state: str) -> tuple[int, str]:
    """Exit status and outcome of a failure in *state*."""
    return (3, "UNTOUCHED") if state == "CHECKED" else (4, "ROLLED_BACK")


def assert_goes_on_at_origin(bench: Bench, within_s: float = 5.0) -> None:
    took_s = bench.assert_alone("origin", within_s=within_s)
    print(
        f"undone after {took_s:.2f} s, numbers on all connections after {bench.assert_streams():.2f} s more"
    )


def assert_moved(bench: Bench) -> None:
    bench.assert_alone("destination")
    bench.assert_streams()


def killed_in(bench: Bench, state: str, *victims: str) -> Migration:
    """A migration of which *victims*, the driver among them, were killed in *state*: as :meth:`Migration.kill`."""
    migration = Migration(bench, state)
    migration.kill(*victims)
    migration.killed()
    return migration


def assert_decided_in_doubt(bench: Bench, migration: Migration) -> None:
    """It runs on the destination, and the origin's copy stays frozen until somebody decides."""
    bench.assert_alone("destination", doubt=migration.id)
    decide_in_doubt(bench, migration, runs_on="destination")


def decide_in_doubt(bench: Bench, migration: Migration, *, runs_on: str) -> None:
    """In doubt: one copy is frozen, nothing begins anew, and --recover asks the destination and does the rest."""
    status, report = bench.migrate(str(bench.pid), "destination")
    assert (status, [reason["code"] for reason in report["reasons"]]) == (3, ["in-doubt"])
    assert f"--resume {migration.id}" in report["reasons"][0]["remedy"]
    if runs_on == "destination":
        bench.assert_alone("destination", doubt=migration.id)
        bench.assert_streams()
    status, report = bench.migrate("--recover")
    assert (status, report["outcome"]) == (0, "UNTOUCHED"), report
    if runs_on == "destination":
        assert (
            f"destination was asked: it runs there as PID {bench.number_on(bench.destination)}"
            in report["notes"]
        )
        assert_moved(bench)
    else:
        assert "destination was asked: it does not run there" in report["notes"]
        assert_goes_on_at_origin(bench)
