"""Which message may come after which, as an agent takes them: what the table makes of it, spelt out."""

from __future__ import annotations

import pytest

from migrate import order
from migrate.link import questions
from migrate.pb.session_pb2 import Frame
from migrate.steps import STEPS

#: The same, by hand.
EXPECTED = {
    "": "hello",
    "hello": "process ask goodbye",
    "ask": "ask goodbye",
    "process": "prepare compare copy goodbye",
    "prepare": "copy image connections compare restore abort",
    "restore": "switch gap abort",
    "switch": "commit gap abort",
    "commit": "goodbye gap",
    "abort": "goodbye gap",
    "goodbye": "gap",
    "failed": "copy image connections compare restore switch commit gap abort goodbye",
}


@pytest.mark.parametrize("after", EXPECTED)
def test_what_may_follow(after: str) -> None:
    assert order.FOLLOWS[after] == set(EXPECTED[after].split())


def test_nothing_else_is_followed() -> None:
    assert set(order.FOLLOWS) == set(EXPECTED)
    assert {"compare", "copy", "image", "connections", "gap"} == order.MEANWHILE
    assert not order.MEANWHILE & set(order.FOLLOWS)


def test_what_a_message_has_the_destination_do_belongs_to_a_step() -> None:
    """Of one that comes in several steps the origin knows which it is."""
    own = {"hello": "connect", "process": "check", "prepare": "prepare", "connections": "isolate"}
    own |= {"restore": "restore", "switch": "switch", "commit": "activate", "goodbye": "release"}
    assert own | dict.fromkeys(("compare", "copy", "image", "gap"), "") == order.STEP_OF


def test_what_may_be_journalled_for_a_message() -> None:
    """Whatever comes in several steps may have what any of them has."""
    found = {kind: [one.word for one in entries] for kind, entries in order.JOURNALLED.items()}
    copied, built = (
        ["directory", "copied"],
        ["switch", "sockets", "on-the-way", "routes", "tree", "criu", "tree"],
    )
    prepared = ["muted", "of-podman", "joined", "isolation", "images", *copied, "arriving", "of-unit"]
    some = {"prepare": prepared, "copy": prepared + copied}
    some |= {"compare": some["copy"], "image": copied, "restore": built, "gap": built}
    assert {kind: entries for kind, entries in found.items() if entries} == some


def test_what_is_asked_and_what_is_answered_has_a_number() -> None:
    """All that a step sends and waits for but the hellos; questions about files, and what is not in the table."""
    sent = {kind for step in STEPS for kind in step.sends} | {"compare", "abort", "ask"}
    awaited = {kind for step in STEPS for kind in step.waits} | {"aborted", "answer"}
    assert sent - {"hello"} == questions.QUESTIONS and awaited - {"hello"} == questions.ANSWERS


def test_every_message_of_the_table_is_one() -> None:
    fields = {field.name for field in Frame.DESCRIPTOR.fields}
    said = {kind for step in STEPS for kind in (*step.sends, *step.waits, *step.meanwhile)}
    apart = {"ask", "answer", "abort", "aborted", "failure", "ping", "stamp", "question", "payload_bytes"}
    assert said | apart == fields and not said & apart
