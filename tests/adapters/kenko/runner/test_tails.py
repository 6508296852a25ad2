"""Output on its way to the hub: in frames, again after a reconnect, with gaps that are named."""

from __future__ import annotations

import msgspec
import pytest

from hubbub_kenko import wire
from hubbub_kenko.admin.remote import RemoteOutput
from hubbub_kenko.runner import wire as orders
from hubbub_kenko.runner.output import LINES, Output
from hubbub_kenko.runner.tails import MAX_FRAME, Tails
from hubbub_kenko.wire import MAX_LINE, MAX_LINES, RunnerOutput


class Way:
    """A runner's outputs, and the hub's."""

    def __init__(self) -> None:
        self.outputs = {"a": Output(None), "b": Output(None)}
        self.tails = Tails(self.outputs.__getitem__)
        self.hub = {"a": RemoteOutput(), "b": RemoteOutput()}

    def write(self, name: str, *texts: str) -> None:
        self.outputs[name].add("".join(f"{text}\n" for text in texts).encode(), 7)
        self.tails.grown(name)

    def sent(self) -> list[RunnerOutput]:
        """Return what is to be sent, as the hub reads it."""
        frames = [wire.decode(text) for text in self.tails.frames()]
        assert all(isinstance(frame, RunnerOutput) for frame in frames)
        return frames  # type: ignore[return-value]

    def pass_on(self) -> None:
        for frame in self.sent():
            self.hub[frame.deployment_id].take(frame, 9)

    def shown(self, name: str) -> list[str]:
        return [line.text for line in self.hub[name].lines.after(0, 10_000)]


def test_frames_are_bounded_and_take_turns() -> None:
    """By lines, and by size; nobody waits behind a deployment that writes much."""
    way = Way()
    way.write("a", *(f"a{n}" for n in range(MAX_LINES + 1)))
    way.write("b", "b0")
    frames = way.sent()
    assert [(one.deployment_id, len(one.lines)) for one in frames] == [
        ("a", MAX_LINES), ("b", 1), ("a", 1),
    ]  # fmt: skip
    assert way.sent() == []
    way.write("a", *("x" * MAX_LINE for _ in range(20)))
    sizes = [sum(len(line.text) for line in one.lines) for one in way.sent()]
    assert sizes == [MAX_FRAME, 20 * MAX_LINE - MAX_FRAME]


def test_lines_come_once() -> None:
    """However often they are told, and in whichever life of the runner they were numbered."""
    way = Way()
    way.write("a", "one", "two")
    way.pass_on()
    way.tails.again()
    way.write("a", "three")
    way.pass_on()
    assert way.shown("a") == ["one", "two", "three"]
    assert [line.at_us for line in way.hub["a"].lines.after(0, 10)] == [7, 7, 7]
    anew = Way()
    anew.hub = way.hub
    anew.write("a", "four")
    anew.pass_on()
    assert anew.shown("a") == ["one", "two", "three", "four"]


def test_lines_that_were_lost_are_counted() -> None:
    """By a hub that had a line before; one that begins anew has lost nothing."""
    way = Way()
    way.write("a", "first")
    way.pass_on()
    way.write("a", *(f"{n}" for n in range(LINES + 5)))  # more than is remembered
    first, *_ = way.sent()
    way.hub["a"].take(first, 9)
    assert way.shown("a")[:3] == ["first", "[hub] 5 lines were lost on the way", "5"]
    way.hub["a"] = RemoteOutput()
    way.tails.again()
    way.pass_on()
    assert way.shown("a") == [f"{n}" for n in range(5, LINES + 5)]


def test_what_was_removed_is_forgotten() -> None:
    """Nothing of it is sent any more."""
    way = Way()
    way.write("a", "one")
    way.tails.forget("a")
    assert way.sent() == []


@pytest.mark.parametrize(
    ("order", "known"),
    [
        ({}, None),
        ({"id": "x", "op": "stop"}, "x"),
        ({"id": "x", "op": "stop", "deployment_id": "../x"}, "x"),
        ({"id": "x", "op": "stop", "deployment_id": ""}, "x"),
        ({"id": 1, "op": "stop", "deployment_id": "d"}, None),
        (
            {"id": "x", "op": "start", "deployment_id": "d",
             "package": {"sha256": "../../x", "size": 1, "path": "/p"}},
            "x",
        ),
        (
            {"id": "x", "op": "start", "deployment_id": "d",
             "package": {"sha256": "0" * 64, "size": 1, "path": "//elsewhere/p"}},
            "x",
        ),
    ],
)  # fmt: skip
def test_orders_that_cannot_be_are_refused(order: dict[str, object], known: str | None) -> None:
    """What names a file is looked at; the hub is told which order it was, where that is known."""
    with pytest.raises(orders.OrderError) as refused:
        orders.read_order(msgspec.Raw(msgspec.json.encode(order)))
    assert refused.value.order_id == known
