"""What is the same for many processes is said once, and for all of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from inventories import process, task

from migrate.checks import obstacles
from migrate.checks.reasons import shortened as reasons_shortened
from migrate.checks.subject import Subject
from migrate.checks.together import together
from migrate.errors import Reason
from migrate.pb.session_pb2 import HostInventory, Obstacle


def subject(*comms: str) -> Subject:
    tasks = [task(100 + number, comm=comm) for number, comm in enumerate(comms)]
    return Subject(process(tasks=tasks), HostInventory(), HostInventory())


def reason(text: str, code: str = "traced", remedy: str = "Do it.") -> Reason:
    return Reason(code, "origin", text, remedy)


def texts(about: Subject, *some: str) -> list[str]:
    return [one.text for one in together(map(reason, some), about)]


def test_the_same_of_two_programs_in_one_sentence() -> None:
    about = subject("postgres", "postgres", "sh")
    told = texts(
        about,
        "postgres (PID 100) is being traced",
        "postgres (PID 101) is being traced",
        "sh (PID 102) is being traced",
    )
    assert told == ["each of postgres (PIDs 100, 101), sh (PID 102) is being traced"]


def test_many_are_counted() -> None:
    about = subject(*["postgres"] * 17)
    told = texts(about, *(f"3 of {about.who(100 + number)} is open" for number in range(17)))
    assert told == ["3 of each of postgres (PIDs 100, 101, 102, 103, 104, 105, 106, 107 and 9 more) is open"]


def test_what_differs_stays_apart() -> None:
    about = subject("a", "a")
    first, second = about.who(100), about.who(101)
    assert texts(about, f"{first} has 3", f"{second} has 4") == [f"{first} has 3", f"{second} has 4"]
    other = together([reason(f"{first} x"), reason(f"{second} x", remedy="Do that.")], about)
    assert [one.text for one in other] == [f"{first} x", f"{second} x"]


def test_the_same_twice_of_one_and_a_stranger() -> None:
    about = subject("a")
    assert texts(about, "a (PID 100) x", "a (PID 100) x", "none", "none") == ["a (PID 100) x", "none"]
    assert texts(about, "other (PID 7) x", "other (PID 8) x") == ["other (PID 7) x", "other (PID 8) x"]


def test_all_their_numbers_are_there_for_programs() -> None:
    about = subject(*["postgres"] * 17)
    told = together((reason(f"{about.who(100 + number)} is traced") for number in range(17)), about)
    assert [one.pids for one in told] == [tuple(range(100, 117))]
    assert [one.pids for one in together([reason("nobody's")], about)] == [()]


def test_more_of_a_kind_have_their_numbers_too() -> None:
    told = reasons_shortened([Reason("a", "origin", str(n), "Do it.", (n, n + 1)) for n in range(8)])
    assert (told[-1].text, told[-1].pids) == ("and 3 more of this kind", (5, 6, 7, 8))


def test_notes_that_are_the_same_are_one() -> None:
    tasks = [task(100 + number, comm="postgres") for number in range(17)]
    found = [Obstacle(code="processor-time", pid=100 + number, what="60") for number in range(17)]
    told = obstacles.notes(process(tasks=tasks, obstacles=found))
    assert len(told) == 1 and "each of postgres (PIDs 100, 101, " in told[0] and "and 9 more" in told[0]


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["x", "y (PID 3)", ""])), max_size=20))
def test_every_process_is_named_in_its_sentence(drawn: list[tuple[int, str]]) -> None:
    about = subject("a", "b (PID 100)", "c", "a", "", "(PID 104)")
    given = [(100 + which, rest) for which, rest in drawn]
    told = together((reason(f"{about.who(pid)} has {rest}") for pid, rest in given), about)
    for pid, rest in given:
        assert any(str(pid) in one.text and one.text.endswith(f"has {rest}") for one in told)
    assert len(told) <= len({rest for _, rest in given}) or not given
