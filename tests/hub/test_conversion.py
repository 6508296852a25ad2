"""Chains of converters."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub.conversion import CACHE_LIMIT, MAX_CHAIN, Conversions, Converter
from hubbub.envelope import Envelope
from hubbub.errors import PluginError


def same(envelope: Envelope) -> Envelope:
    return envelope


def converter(pair: str) -> Converter:
    """Make `a>b` a converter from a to b."""
    from_type, to_type = pair.split(">")
    return Converter(from_type, to_type, same)


def made(*pairs: str) -> Conversions:
    conversions = Conversions()
    for pair in pairs:
        conversions.add(converter(pair), plugin="p")
    return conversions


def way(chain: tuple[Converter, ...] | None) -> list[str] | None:
    return None if chain is None else [f"{it.from_type}>{it.to_type}" for it in chain]


TABLE: dict[str, tuple[list[str], tuple[str, ...], list[str] | None]] = {
    "accepts all": ([], (), []),
    "native": (["a>b"], ("b", "a"), []),
    "one step": (["a>b"], ("b",), ["a>b"]),
    "over the canonical type": (["a>chat", "b>chat", "chat>b"], ("b",), ["a>chat", "chat>b"]),
    "the shorter way": (["a>x", "x>y", "y>b", "a>z", "z>b"], ("b",), ["a>z", "z>b"]),
    "first registered": (["a>x", "a>y", "y>b", "x>b"], ("b",), ["a>x", "x>b"]),
    "nearest of two": (["a>x", "x>b", "a>c"], ("b", "c"), ["a>c"]),
    "against the arrow": (["b>a"], ("b",), None),
    "round in circles": (["a>x", "x>a"], ("b",), None),
    "nothing there": ([], ("b",), None),
    "as long as allowed": (
        ["a>1", "1>2", "2>3", "3>b"],
        ("b",),
        ["a>1", "1>2", "2>3", "3>b"],
    ),
    "one too long": (["a>1", "1>2", "2>3", "3>4", "4>b"], ("b",), None),
}


@pytest.mark.parametrize(("pairs", "accepts", "expected"), TABLE.values(), ids=TABLE)
def test_chain(pairs: list[str], accepts: tuple[str, ...], expected: list[str] | None) -> None:
    """The shortest chain from `a`, or none."""
    conversions = made(*pairs)
    assert way(conversions.chain("a", accepts)) == expected
    assert conversions.accepts("a", accepts) is (expected is not None)


def test_limit_of_a_chain_is_what_the_table_says() -> None:
    """The two rows about length stand right at the limit."""
    assert len(TABLE["as long as allowed"][2] or ()) == MAX_CHAIN


def test_change_is_seen_at_once() -> None:
    """A remembered chain, or a remembered lack of one, does not outlive a change."""
    conversions = made("a>x")
    assert conversions.chain("a", ("b",)) is None
    conversions.add(converter("x>b"), plugin="late")
    assert way(conversions.chain("a", ("b",))) == ["a>x", "x>b"]
    conversions.remove_plugin("late")
    assert conversions.chain("a", ("b",)) is None


def nothing(envelope: Envelope) -> None:
    """Convert to nothing."""
    del envelope


def test_of_two_for_one_pair_the_first_is_used_while_it_is_there() -> None:
    """A second plugin stands in when the first one is taken away."""
    conversions = Conversions()
    first = Converter("a", "b", same)
    second = Converter("a", "b", nothing)
    conversions.add(first, plugin="one")
    conversions.add(second, plugin="two")
    assert conversions.chain("a", ("b",)) == (first,)
    conversions.remove_plugin("one")
    assert conversions.chain("a", ("b",)) == (second,)


def test_chain_is_searched_once() -> None:
    """The same question gets the same tuple."""
    conversions = made("a>x", "x>b")
    assert conversions.chain("a", ("b",)) is conversions.chain("a", ("b",))


def test_what_is_remembered_has_a_limit() -> None:
    """Types invented outside do not fill the memory."""
    conversions = made("a>b")
    for number in range(CACHE_LIMIT + 1):
        conversions.chain("a", (f"t{number}",))
        conversions.chain(f"t{number}", ("b",))
    assert len(conversions._chains) == 1  # pyright: ignore[reportPrivateUsage]
    assert way(conversions.chain("a", ("b",))) == ["a>b"]


def test_converter_to_its_own_type_is_refused() -> None:
    """It would never be called."""
    with pytest.raises(PluginError, match="to itself"):
        made("a>a")


TYPES = st.sampled_from("abcdefg")
PAIRS = st.tuples(TYPES, TYPES).filter(lambda pair: pair[0] != pair[1]).map(">".join)


def brute_force(pairs: list[str], start: str, accepts: tuple[str, ...]) -> list[str] | None:
    """Try every sequence of converters; the shortest wins, then the earliest registered."""
    if start in accepts:
        return []
    chains: list[tuple[int, ...]] = [()]
    for _ in range(MAX_CHAIN):
        chains = [
            (*chain, place)
            for chain in chains
            for place, pair in enumerate(pairs)
            if pair[0] == (pairs[chain[-1]][2] if chain else start)
        ]
        for chain in chains:  # in the order of registration, the first step deciding
            if pairs[chain[-1]][2] in accepts:
                return [pairs[place] for place in chain]
    return None


@given(
    st.lists(PAIRS, max_size=10), TYPES, st.lists(TYPES, min_size=1, max_size=3).map(tuple)
)  # fmt: skip
def test_chain_is_the_shortest(pairs: list[str], start: str, accepts: tuple[str, ...]) -> None:
    """No sequence of converters is shorter, and each step fits the one before."""
    chain = made(*pairs).chain(start, accepts)
    assert way(chain) == brute_force(pairs, start, accepts)
    if chain:
        assert all(left.to_type == right.from_type for left, right in pairwise(chain))
        assert chain[-1].to_type in accepts
