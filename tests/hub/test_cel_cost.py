"""What `where_cel` may cost: bounded before it runs, by its text and by the data."""

from __future__ import annotations

from contextlib import suppress
from time import perf_counter
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub import Envelope
from hubbub.conditions import compile_where
from hubbub.conditions.cel_cost import CHARACTERS_PER_STEP, MAX_STEPS, Cost
from hubbub.errors import RouteError

pytest.importorskip("cel")

SLOW_S: Final = 2.0
"""A wide bound: unbounded, each of these takes from half a minute to hours."""

HOLDERS = {
    "every item by every other": "data.items.all(x, data.items.exists(y, y == x))",
    "what is gathered is copied": "data.items.map(x, x).size() > 0",
    "gathered and joined": "data.items.map(x, data.items + data.items).size() > 0",
    "filtered": "data.items.filter(x, x >= 0).size() > 0",
    "looked for in itself": "data.items.all(x, x in data.items)",
    "compared as a whole": "data.items.all(x, data.items == data.items)",
    "by another name": 'data.items.all(x, data["items"] == data["items"])',
    "all of the data": "data.items.all(x, data == data)",
    "a long text in each": "data.items.all(x, !data.text.contains('zy'))",
    "in a macro's range": "data.items.filter(x, true).all(x, data.items.exists(y, y == x))",
    "a list of the expression": "[1, 2, 3].all(a, data.items.map(b, b).exists(c, c == a))",
}


def message(items: int) -> Envelope:
    data = {"items": list(range(items)), "text": "zzzzzzzz" * 60_000, "n": 1}
    return Envelope.new(source="api.a", subject="a", data=data)


@pytest.mark.parametrize("text", HOLDERS.values(), ids=HOLDERS)
def test_no_condition_holds_the_loop(text: str) -> None:
    """With data that would keep it busy a condition does not run, does not hold, is counted."""
    skipped: list[None] = []
    condition = compile_where({}, text, too_costly=lambda: skipped.append(None))
    assert condition is not None
    began = perf_counter()
    assert condition(message(100_000)) is False
    assert perf_counter() - began < SLOW_S
    assert len(skipped) == 1


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("data.items.all(x, x >= 0)", 90_000),
        ("data.items.all(x, x >= data.n - 1)", 40_000),
        ("data.items.all(x, data.items.exists(y, y == x))", 300),
        ("data.items.map(x, x + 1).exists(y, y == 1)", 300),
        ("data.text.contains('z') && size(data.items) == 100000", 100_000),
    ],
)
def test_what_is_within_the_bound_runs(text: str, items: int) -> None:
    """Conditions of ordinary cost hold as ever."""
    condition = compile_where({}, text)
    assert condition is not None
    assert condition(message(items)) is True


def test_the_bound_is_exact() -> None:
    """One step more than the limit is one too many."""
    cost = Cost.of("data.all(x, x)")
    assert cost.is_within([True] * (MAX_STEPS - 1 - cost.literals))
    assert not cost.is_within([True] * (MAX_STEPS - cost.literals))


def test_a_long_text_counts_as_several_items() -> None:
    """A text that is searched for each item costs by its length."""
    cost = Cost.of("data.items.all(x, data.text.contains(x))")
    fitting = {"items": ["a"] * 50, "text": "z" * (CHARACTERS_PER_STEP * 3000)}
    assert cost.is_within({**fitting, "text": "z"})
    assert not cost.is_within(fitting)


@pytest.mark.parametrize(
    "text",
    [
        "data.a.all(x, x.all(y, y.all(z, z)))",
        "data.a.all(x, x.all(y, true || [y].exists(z, z)))",
        "data.a . all (x, x . all\n(y, y .all(z, z)))",
    ],
)
def test_three_macros_in_each_other_are_refused(text: str) -> None:
    """Over MAX_NESTING a route would never run, and says so when it is made."""
    with pytest.raises(RouteError, match="nested deeper than 2"):
        compile_where({}, text)


def test_brackets_in_texts_are_no_nesting() -> None:
    """What stands in quotes is neither a macro nor a bracket."""
    cost = Cost.of(r"""data.a == ".all(x, .all(y, .all(z, (((" || data.b == '\'.map(x, '""")
    assert cost.weight == 0


@given(st.text(alphabet="data.all(x, exists map filter y [\"'){}+", max_size=60))
def test_any_text_has_a_cost_or_is_refused(text: str) -> None:
    """Whatever is written, the outcome is a cost or a RouteError."""
    with suppress(RouteError):
        assert Cost.of(text).weight >= 0
