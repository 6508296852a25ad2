"""What needs no hub: frames, waits, the journal, finding handlers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub_node import Handlers, NodeSettings, wire
from hubbub_node.handlers import HandlersError, load
from hubbub_node.journal import Journal, JournalError
from hubbub_node.pauses import Pauses

KEY = b"mySignatureKey123456789012345"
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def test_the_signature_is_the_pages_own() -> None:
    """Source: protocol page, 1.2, first test vector."""
    headers = wire.signed_headers(
        "/node/ws", {"pc_id": "node_00112233aabbccdd"}, KEY, now_s=1700000000, nonce="1700000000999"
    )
    assert headers["X-Signature"] == "TyWt7lqEXVCiZblFR9ktybt/CsMEJGyGTvvhnrqhK7M="
    assert (headers["X-Timestamp"], headers["X-Nonce"]) == ("1700000000", "1700000000999")


@given(st.text() | st.binary() | VALUES.map(json.dumps))
def test_whatever_comes_is_a_frame_or_nothing(text: str | bytes) -> None:
    """Nothing that a hub sends ends the node."""
    wire.read_frame(text)


@given(VALUES)
def test_whatever_a_handler_returns_is_told(value: Any) -> None:
    """As it is where JSON can say it, else as a failure; always as one frame of JSON."""
    frame = json.loads(wire.result("t", value, now_s=1, limit_bytes=10_000))
    assert frame["task_id"] == "t"
    if frame["status"] == "completed":
        assert frame["result"] == json.loads(json.dumps(value))
    else:
        assert frame["error"]


def test_a_result_may_be_as_large_as_a_frame() -> None:
    """At the limit it goes, one byte more is a failure that says so."""
    size_bytes = len(wire.result("t", "x" * 100, now_s=1, limit_bytes=1000))
    assert wire.is_completed(wire.result("t", "x" * 100, now_s=1, limit_bytes=size_bytes))
    over = json.loads(wire.result("t", "x" * 101, now_s=1, limit_bytes=size_bytes))
    assert over["status"] == "failed"
    assert f"the limit of a frame is {size_bytes}" in over["error"]


@given(st.lists(st.floats(0, 100), max_size=40), st.floats(0, 1))
def test_waits_grow_to_their_bound_and_begin_anew(lasted_s: list[float], chance: float) -> None:
    """Never over the longest; the shortest again after a connection that was stable."""
    pauses = Pauses(0.5, 30.0, 10.0)
    for seconds in lasted_s:
        pauses = pauses.after(seconds)
        assert 0.25 <= pauses.next_s(chance) <= 30.0
        if seconds >= 10.0:
            assert pauses.next_s(chance) <= 0.5
    for _ in range(7):
        pauses = pauses.after(0.0)
    assert 15.0 <= pauses.next_s(chance) <= 30.0


def test_a_journal_keeps_results_and_the_id(tmp_path: Path) -> None:
    """Over a restart; a result that was forgotten is gone."""
    path = tmp_path / "below" / "node.db"
    journal = Journal(path)
    name = journal.node_id(None)
    journal.keep("t1", "first")
    journal.keep("t2", "second")
    journal.keep("t1", "again")
    journal.forget("t2")
    journal.close()
    journal = Journal(path)
    assert journal.node_id(None) == name
    assert journal.all() == [("t1", "again")]
    assert journal.node_id("chosen") == "chosen"
    journal.close()


def test_a_journal_has_one_node(tmp_path: Path) -> None:
    """A second one is told so, instead of taking over the first one's id."""
    journal = Journal(tmp_path / "node.db")
    with pytest.raises(JournalError, match="another node may have it open"):
        Journal(tmp_path / "node.db")
    journal.close()


def test_handlers_are_found_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`module:attribute`; whatever else is there is refused with a reason."""
    (tmp_path / "found_work.py").write_text(
        "import hubbub_node\nhandlers = hubbub_node.Handlers()\nnothing = {}\nwrong = {1: print}\n"
        "@handlers.task('add')\ndef add(data):\n    return data['a'] + data['b']\n"
    )
    monkeypatch.chdir(tmp_path)
    assert load("found_work:handlers")["add"]({"a": 1, "b": 2}) == 3
    reasons = {
        "found_work": "write module:attribute",
        "not_there:handlers": "no module 'not_there'",
        "found_work:missing": "no mapping",
        "found_work:nothing": "no mapping",
        "found_work:wrong": "no task type",
    }
    for name, reason in reasons.items():
        with pytest.raises(HandlersError, match=reason):
            load(name)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"url": "hub.example.org"}, "no address of a hub"),
        ({"url": "http://hub.example.org"}, "signature_key"),
        ({"url": "http://127.0.0.1", "concurrency": 0}, "1 to 1000"),
        ({"url": "http://127.0.0.1", "concurrency": 1001}, "1 to 1000"),
    ],
)
def test_settings_that_cannot_work_are_refused(given: dict[str, Any], reason: str) -> None:
    """With what to write instead."""
    with pytest.raises(ValueError, match=reason):
        NodeSettings(**given)


def test_a_key_is_not_shown() -> None:
    """Not by `repr` either."""
    assert "s3cret" not in repr(NodeSettings(url="https://hub.example.org", key="s3cret"))


def test_a_decorated_handler_stays_a_function() -> None:
    """So that it can be called, and tested, as one."""
    handlers = Handlers()

    @handlers.task("double")
    def double(data: dict[str, Any]) -> int:
        return int(data["n"]) * 2

    assert handlers == {"double": double}
    assert double({"n": 4}) == 8
