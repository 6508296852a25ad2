"""What a node may be given, and what a user wants to be told, as values."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hubbub_octohub.records import NodeRule
from hubbub_octohub.session import Abilities, NodeSession, Wishes, rule_for
from hubbub_octohub.wire import NodeReady, Pong

LEGACY = ("default", "echo", "sleep")
FRESH = NodeSession("node_1", 100.0, 100.0)
RENDERER = NodeReady(("render",), {"gpu": "yes"}, 4)


def abilities(session: NodeSession, rule: NodeRule | None = None, *, now_s: float) -> Abilities:
    """Return what a session may be given."""
    return session.abilities(rule, legacy_types=LEGACY, ready_wait_s=1.0, now_s=now_s)


def test_a_node_that_says_nothing_is_one_of_the_originals() -> None:
    """After a moment in which it may say more; until then it gets nothing."""
    assert abilities(FRESH, now_s=100.9).concurrency == 0
    assert abilities(FRESH, now_s=101) == Abilities(frozenset(LEGACY), {}, 1)


def test_a_node_that_says_what_it_does_gets_that_at_once() -> None:
    """And one that says only `node_ready` gets the usual."""
    ready = FRESH.receive(RENDERER, now_s=100.1)
    assert abilities(ready, now_s=100.1) == Abilities(frozenset({"render"}), {"gpu": "yes"}, 4)
    plain = FRESH.receive(NodeReady(), now_s=100.1)
    assert abilities(plain, now_s=100.1) == Abilities(frozenset(LEGACY), {}, 1)


def test_an_administrator_is_stronger() -> None:
    """In what is said; the rest is the node's."""
    ready = FRESH.receive(RENDERER, now_s=100.1)
    rule = NodeRule(pc_id="node_1", labels={"gpu": "no", "room": "1"}, max_concurrency=2)
    said = abilities(ready, rule, now_s=101)
    assert said == Abilities(frozenset({"render"}), {"gpu": "no", "room": "1"}, 2)
    types = NodeRule(pc_id="node_*", task_types=("echo",))
    assert abilities(ready, types, now_s=101).task_types == {"echo"}
    off = NodeRule(pc_id="node_1", enabled=False)
    assert abilities(ready, off, now_s=101).concurrency == 0


def test_every_frame_is_a_sign_of_life() -> None:
    """Also one that could not be read."""
    assert FRESH.receive(None, now_s=107).seen_s == 107
    assert FRESH.receive(Pong(), now_s=108).seen_s == 108
    assert FRESH.receive(RENDERER, now_s=1).receive(Pong(), now_s=2).ready == RENDERER


def test_the_most_exact_rule_counts() -> None:
    """They are read from the store in that order."""
    rules = [NodeRule(pc_id="node_1"), NodeRule(pc_id="node_1*"), NodeRule(pc_id="node_*")]
    assert rule_for(rules, "node_1") is rules[0]
    assert rule_for(rules, "node_12") is rules[1]
    assert rule_for(rules, "node_2") is rules[2]
    assert rule_for(rules, "other") is None


def test_wishes() -> None:
    """Everything, single tasks, or types; without a name nothing is left."""
    nothing = Wishes()
    assert not nothing
    assert not nothing.want("t", "echo")
    some = nothing.add(task_id="t").add(task_type="echo")
    assert some
    assert len(some) == 2
    assert (some.want("t", "x"), some.want("x", "echo"), some.want("x", "x")) == (True, True, False)
    assert nothing.add().want("x", "x")
    assert not some.remove(task_id="t").remove(task_type="echo")
    assert not some.add().remove()


@given(st.lists(st.sampled_from("abc")), st.sampled_from("abc"))
def test_a_wish_taken_back_is_gone(ids: list[str], back: str) -> None:
    """However often it was made."""
    wishes = Wishes()
    for task_id in ids:
        wishes = wishes.add(task_id=task_id)
    wishes = wishes.remove(task_id=back)
    assert not wishes.want(back, "x")
    assert all(wishes.want(task_id, "x") for task_id in ids if task_id != back)
