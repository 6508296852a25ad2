"""What `where`, `where_cel` and `key` of a route mean."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Mapping
from datetime import date
from typing import cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hubbub.conditions import (
    MAX_CEL,
    MAX_OPERAND_DEPTH,
    MAX_OPERATORS,
    MISSING,
    compile_path,
    compile_where,
)
from hubbub.envelope import Envelope
from hubbub.errors import RouteError

DATA = {
    "task_type": "render",
    "params": {"size": 10, "ratio": 1.0, "big": 10**30, "text": "Größe 7", "none": None},
    "items": [{"name": "first"}, {"name": "second"}, [1, [2]]],
    "tags": ["a", 1, True, None, {"k": [1]}],
    "flag": True,
    "a.b": {'c"d': 1, "e\\f": 2},
    "0": "zero",
    "01": "padded",
    "": "empty",
}
ENVELOPE = Envelope.new(
    source="relay.master",
    subject="relay.child.task.render",
    type="hubbub.task.request.v1",
    data=DATA,
    id="01JD",
    key="u77",
    priority=7,
    reply_to="relay.master",
    hops=2,
)
BARE = Envelope.new(source="api.x", subject="a", data=DATA)
NOT_JSON = {"text": b"{", "empty": b"", "utf-8": b'"\xff"', "deep": b"[" * 100_000, "nan": b"NaN"}


def holds(where: Mapping[str, object], envelope: Envelope = ENVELOPE) -> bool:
    condition = compile_where(where)
    assert condition is not None
    return condition(envelope)


# --- paths ----------------------------------------------------------------------------------

PATHS = {
    "data": DATA,
    "data.task_type": "render",
    "data.params.size": 10,
    "data.params.none": None,
    "data.items.0.name": "first",
    "data.items.2.1.0": 2,
    "data.items.3": MISSING,
    "data.items.-1": MISSING,
    "data.items.00": MISSING,
    'data.items."0"': MISSING,
    "data.items.99999999999999999999999": MISSING,
    "data.items.name": MISSING,
    "data.0": "zero",
    'data."0"': "zero",
    "data.01": "padded",
    'data.""': "empty",
    r'data."a.b"."c\"d"': 1,
    r'data."a.b"."e\\f"': 2,
    "data.params.size.more": MISSING,
    "data.task_type.0": MISSING,
    "data.nowhere.deep": MISSING,
    "type": "hubbub.task.request.v1",
    "source": "relay.master",
    "subject": "relay.child.task.render",
    "key": "u77",
    "priority": 7,
    "id": "01JD",
    "replyto": "relay.master",
    "hops": 2,
}


@pytest.mark.parametrize(("path", "value"), PATHS.items(), ids=PATHS)
def test_path_reads_what_stands_there(path: str, value: object) -> None:
    """A path gives the value, or MISSING."""
    assert compile_path(path)(ENVELOPE) == value


@pytest.mark.parametrize("path", ["key", "replyto"])
def test_attribute_that_is_not_set_is_missing(path: str) -> None:
    """No key and no reply address are nothing, not null."""
    assert compile_path(path)(BARE) is MISSING


@pytest.mark.parametrize(
    "path",
    ["", ".", "data.", ".data", "data..x", 'data."x', 'data."x\\', 'data."x"y', 'da"ta', "dat.x",
     "type.x", "subject.0", "time", 'data.x"y'],
)  # fmt: skip
def test_bad_path_is_refused(path: str) -> None:
    """A path that can never be there is an error of the route."""
    with pytest.raises(RouteError):
        compile_path(path)
    with pytest.raises(RouteError):
        compile_where({path: 1})


def test_unknown_attribute_hints_at_the_near_one() -> None:
    """A typing error is answered with what was probably meant."""
    with pytest.raises(RouteError, match="did you mean 'source'"):
        compile_path("sorce")


@pytest.mark.parametrize("data", NOT_JSON.values(), ids=NOT_JSON)
def test_data_that_is_not_json_has_nothing_inside(data: bytes) -> None:
    """No condition on such data holds, `exists = false` neither; other paths are not affected."""
    envelope = Envelope.new(source="a", subject="b", type="t", data=data)
    assert compile_path("data.x")(envelope) is MISSING
    assert not holds({"data.x": {"exists": False}}, envelope)
    assert not holds({"data": {"exists": True}}, envelope)
    assert holds({"type": "t"}, envelope)


def test_data_is_not_decoded_for_attributes() -> None:
    """Only a path that begins with `data`, and is reached, looks inside."""
    envelope = Envelope.new(source="a", subject="b", data={"x": 1})
    assert holds({"source": "a", "priority": 5}, envelope)
    assert not holds({"data.x": 1, "source": "other"}, envelope)
    assert not envelope.__dict__  # nothing is cached
    assert holds({"data.x": 1}, envelope)
    assert envelope.__dict__


# --- operators ------------------------------------------------------------------------------

TABLE: list[tuple[str, object, bool]] = [
    ("data.task_type", "render", True),
    ("data.task_type", "other", False),
    ("data.params.size", 10, True),
    ("data.params.size", 10.0, True),
    ("data.params.size", "10", False),
    ("data.params.ratio", 1, True),
    ("data.params.ratio", True, False),
    ("data.flag", True, True),
    ("data.flag", 1, False),
    ("data.flag", {"ne": 1}, True),
    ("data.params.none", None, True),
    ("data.nowhere", None, False),
    ("data.task_type", ["verify", "render"], True),
    ("data.task_type", ["verify"], False),
    ("data.task_type", [], False),
    ("data.flag", [1, "x"], False),
    ("data.params.size", ["10", 10.0], True),
    ("data.items.2", {"eq": [1.0, [2]]}, True),
    ("data.items.2", {"eq": [True, [2]]}, False),
    ("data.items.0", {"eq": {"name": "first"}}, True),
    ("data.items.0", {"eq": {"name": "first", "x": 1}}, False),
    ("data.items.0", [{"name": "first"}], True),
    ("data.params.size", {"ne": 11}, True),
    ("data.params.size", {"ne": 10}, False),
    ("data.nowhere", {"ne": 10}, False),
    ("data.params.size", {"lt": 10}, False),
    ("data.params.size", {"le": 10}, True),
    ("data.params.size", {"gt": 9.5, "lt": 11}, True),
    ("data.params.size", {"gt": 9.5, "lt": 10}, False),
    ("data.params.size", {"ge": "10"}, False),
    ("data.params.big", {"gt": 1.5}, True),
    ("data.flag", {"gt": 0}, False),
    ("data.task_type", {"gt": "reader", "lt": "s"}, True),
    ("data.task_type", {"lt": 5}, False),
    ("data.nowhere", {"lt": 5}, False),
    ("data.tags", {"contains": "a"}, True),
    ("data.tags", {"contains": None}, True),
    ("data.tags", {"contains": {"k": [1.0]}}, True),
    ("data.tags", {"contains": "b"}, False),
    ("data.items.2", {"contains": True}, False),
    ("data.task_type", {"contains": "nde"}, True),
    ("data.task_type", {"contains": 1}, False),
    ("data.params", {"contains": "size"}, True),
    ("data.params", {"contains": "other"}, False),
    ("data.params", {"contains": ["size"]}, False),
    ("data.params.size", {"contains": 1}, False),
    ("data.task_type", {"prefix": "ren", "suffix": "der"}, True),
    ("data.task_type", {"suffix": "ren"}, False),
    ("data.tags", {"prefix": "a"}, False),
    ("data.task_type", {"regex": "nd"}, True),
    ("data.task_type", {"regex": "^nd"}, False),
    ("data.params.text", {"regex": r"^Gr..e \d$"}, True),
    ("data.params.size", {"regex": "1"}, False),
    ("data.params.none", {"exists": True}, True),
    ("data.nowhere", {"exists": True}, False),
    ("data.nowhere", {"exists": False}, True),
    ("data.nowhere", {"exists": False, "ne": 1}, False),
    ("data.items.0.name", {"in": ["first", 3]}, True),
    ("source", {"prefix": "relay."}, True),
    ("priority", {"ge": 7}, True),
    ("hops", {"lt": 2}, False),
    ("key", ("u1", "u77"), True),
]


@pytest.mark.parametrize(("path", "wanted", "expected"), TABLE, ids=map(repr, TABLE))
def test_operator(path: str, wanted: object, expected: bool) -> None:
    """Each operator does what its name says, and never across types."""
    assert holds({path: wanted}) is expected
    assert reference({path: wanted}, ENVELOPE) is expected


def test_nothing_to_check_is_no_condition() -> None:
    """A route without conditions costs nothing."""
    assert compile_where({}) is None


def test_all_paths_must_hold() -> None:
    """Two entries are an `and`."""
    assert holds({"data.flag": True, "type": "hubbub.task.request.v1"})
    assert not holds({"data.flag": True, "type": "other"})


BAD: dict[str, object] = {
    "no operator": {},
    "operand of in": {"in": "text"},
    "operand of lt": {"lt": True},
    "operand of ge": {"ge": [1]},
    "operand of prefix": {"prefix": 1},
    "operand of regex": {"regex": None},
    "operand of exists": {"exists": 1},
    "look-ahead": {"regex": "(?=a)"},
    "open bracket": {"regex": "("},
    "half a character": {"regex": "\ud800"},
    "date": date(2026, 1, 2),
    "infinite": {"lt": math.inf},
    "not a number": math.nan,
    "bytes": b"x",
    "key of an object": {"eq": {1: 2}},
    "operator that is no text": {1: 2},
}


@pytest.mark.parametrize("wanted", BAD.values(), ids=BAD)
def test_bad_value_is_refused(wanted: object) -> None:
    """What could never hold, or never be stored, is an error of the route."""
    with pytest.raises(RouteError):
        compile_where({"data.x": wanted})


def test_unknown_operator_hints_at_the_near_one_and_at_the_path() -> None:
    """Both what was mistyped and what TOML made of a dotted key are named."""
    with pytest.raises(RouteError, match="did you mean 'prefix'"):
        compile_where({"data.x": {"prefx": "a"}})
    with pytest.raises(RouteError, match=r'"data\.size"'):
        compile_where({"data": {"size": 3}})


def test_bad_regex_is_not_written_to_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    """The error is in the exception and nowhere else."""
    with pytest.raises(RouteError, match="missing"):
        compile_where({"data.x": {"regex": "(unclosed"}})
    assert capfd.readouterr() == ("", "")


def test_depth_of_an_operand_has_a_limit() -> None:
    """The limit itself is allowed, one level more is not."""

    def nested(depth: int) -> object:
        value: object = 1
        for _ in range(depth):
            value = [value]
        return value

    allowed = nested(MAX_OPERAND_DEPTH)
    assert holds({"data": {"eq": allowed}}, Envelope.new(source="a", subject="b", data=allowed))
    with pytest.raises(RouteError, match="nested deeper"):
        compile_where({"data": {"eq": nested(MAX_OPERAND_DEPTH + 1)}})


def test_later_changes_of_the_table_do_not_reach_the_condition() -> None:
    """What was compiled stays what it was."""
    wanted = {"eq": [1]}
    condition = compile_where({"data": wanted})
    assert condition is not None
    wanted["eq"].append(2)
    assert condition(Envelope.new(source="a", subject="b", data=[1]))


# --- against a reference --------------------------------------------------------------------

KEYS = st.sampled_from(["a", "b", "0", "1", "a.b", ""])
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-2, 2)
    | st.sampled_from([0.0, 1.0, 0.5, -1.0])
    | st.sampled_from(["", "a", "ab", "b", "0"])
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)  # fmt: skip
DATA_PATHS = st.lists(KEYS, max_size=3).map(
    lambda keys: ".".join(["data", *(key if key.isalnum() else json.dumps(key) for key in keys)])
)
WHERE_PATHS = DATA_PATHS | st.sampled_from(
    ["type", "source", "subject", "key", "priority", "id", "replyto", "hops"]
)
BOUNDS = st.integers(-2, 2) | st.sampled_from([0.5, 1.0]) | st.sampled_from(["", "a", "b"])
OPERATORS = st.fixed_dictionaries(
    {},
    optional={
        "eq": JSON,
        "ne": JSON,
        "lt": BOUNDS,
        "le": BOUNDS,
        "gt": BOUNDS,
        "ge": BOUNDS,
        "in": st.lists(JSON, max_size=3),
        "contains": JSON,
        "prefix": st.sampled_from(["", "a", "b"]),
        "suffix": st.sampled_from(["", "a", "b"]),
        "regex": st.sampled_from(["", "a", "^b", "a$", "[ab]+"]),
        "exists": st.booleans(),
    },
).filter(bool)
# One operator at a time hits more often than many that must all hold.
ONE_OPERATOR = OPERATORS.map(lambda table: dict([next(iter(table.items()))]))
WANTED: st.SearchStrategy[object] = (
    SCALARS | st.lists(JSON, max_size=3) | OPERATORS | ONE_OPERATOR
)  # fmt: skip
WHERES = st.dictionaries(WHERE_PATHS, WANTED, min_size=1, max_size=2)


def canonical(value: object) -> str:
    """JSON text in which equal values look equal, true is not 1, and 1 is 1.0."""

    def plain(it: object) -> object:
        if isinstance(it, float) and it.is_integer():
            return int(it)
        if isinstance(it, list | tuple):
            return [plain(member) for member in cast("list[object]", it)]
        if isinstance(it, dict):
            return {key: plain(member) for key, member in cast("dict[str, object]", it).items()}
        return it

    return json.dumps(plain(value), sort_keys=True)


def look_up(path: str, envelope: Envelope) -> list[object]:
    """Return what stands at a path, as a list of one or none."""
    event = cast("dict[str, object]", json.loads(envelope.encode()))
    event["key"] = event.pop("partitionkey", None)
    event.setdefault("hops", envelope.hops)
    if not path.startswith("data"):
        return [] if event.get(path) is None else [event[path]]
    value: object = event["data"]
    rest = path.removeprefix("data")
    while rest:
        rest = rest.removeprefix(".")
        if rest.startswith('"'):
            key, end = cast("tuple[str, int]", json.JSONDecoder().raw_decode(rest))
            index = None
        else:
            key, end = rest.split(".")[0], len(rest.split(".")[0])
            index = int(key) if key.isdigit() and key == str(int(key)) else None
        rest = rest[end:]
        try:
            if isinstance(value, list):
                value = cast("list[object]", value)[cast("int", index)]
            else:
                value = cast("dict[str, object]", value)[key]
        except (LookupError, TypeError):
            return []
    return [value]


def reference(where: Mapping[str, object], envelope: Envelope) -> bool:
    """Evaluate as naively as the contract is written."""
    for path, wanted in where.items():
        found = look_up(path, envelope)
        table: dict[str, object] = {"in" if isinstance(wanted, list | tuple) else "eq": wanted}
        if isinstance(wanted, dict):
            table = cast("dict[str, object]", wanted)
        for name, operand in table.items():
            if name == "exists":
                if bool(found) is not operand:
                    return False
            elif not found or not _reference_operator(name, found[0], operand):
                return False
    return True


def _reference_operator(  # noqa: PLR0911  # one return an operator
    name: str, value: object, operand: object
) -> bool:
    texts = isinstance(value, str) and isinstance(operand, str)
    match name:
        case "eq" | "ne":
            return (canonical(value) == canonical(operand)) is (name == "eq")
        case "in":
            members = cast("list[object]", operand)
            return canonical(value) in [canonical(member) for member in members]
        case "lt" | "le" | "gt" | "ge":
            numbers = all(type(it) in (int, float) for it in (value, operand))
            if not (numbers or texts):
                return False
            left, right = cast("float", value), cast("float", operand)
            return {
                "lt": left < right,
                "le": left <= right,
                "gt": left > right,
                "ge": left >= right,
            }[name]
        case "contains" if isinstance(value, list):
            members = cast("list[object]", value)
            return canonical(operand) in [canonical(member) for member in members]
        case "contains" if isinstance(value, str | dict):
            return isinstance(operand, str) and operand in value
        case "prefix":
            return texts and cast("str", value).startswith(cast("str", operand))
        case "suffix":
            return texts and cast("str", value).endswith(cast("str", operand))
        case "regex":
            return texts and re.search(cast("str", operand), cast("str", value)) is not None
        case _:
            return False


@given(JSON, WHERES)
@example({"a": [True]}, {"data.a": {"contains": 1}})
@example([1], {"data.0": True})
def test_agrees_with_the_reference(data: object, where: Mapping[str, object]) -> None:
    """Compiled closures and a naive evaluator give the same answer."""
    envelope = Envelope.new(source="a", subject="b", type="ab", key="a", id="x", data=data)
    assert holds(where, envelope) is reference(where, envelope)


def places(value: object, path: str = "data") -> list[tuple[str, object]]:
    """List every path into a value, with what stands there."""
    found = [(path, value)]
    if isinstance(value, dict):
        for key, member in cast("dict[str, object]", value).items():
            found += places(member, f"{path}.{key if key.isalnum() else json.dumps(key)}")
    if isinstance(value, list):
        for index, member in enumerate(cast("list[object]", value)):
            found += places(member, f"{path}.{index}")
    return found


@st.composite
def data_and_where_nearby(draw: st.DrawFn) -> tuple[object, Mapping[str, object]]:
    """Draw a condition whose operands come out of the data it looks at, so that many hold."""
    data = draw(JSON)
    known = places(data)
    path, value = draw(st.sampled_from(known))
    operand = draw(st.sampled_from([value, *(it for _, it in known)]))
    names = ["eq", "ne", "in", "contains"]
    if isinstance(operand, int | float | str) and not isinstance(operand, bool):
        names += ["lt", "le", "gt", "ge"]
    if isinstance(operand, str):
        names += ["prefix", "suffix", "regex"]
    name = draw(st.sampled_from(names))
    return data, {path: {name: [operand, 7] if name == "in" else operand}}


@given(data_and_where_nearby())
def test_agrees_with_the_reference_where_it_holds(
    drawn: tuple[object, Mapping[str, object]],
) -> None:
    """The same, with operands taken from the data."""
    data, where = drawn
    envelope = Envelope.new(source="a", subject="b", data=data)
    assert holds(where, envelope) is reference(where, envelope)


@given(ANY_JSON, WHERES, st.text())
def test_never_raises(data: object, where: Mapping[str, object], foreign: str) -> None:
    """Any JSON gets an answer, and so does an envelope with foreign text in its attributes."""
    envelope = Envelope.new(source=foreign, subject="b", key=foreign, data=data)
    assert holds(where, envelope) in (True, False)
    assert holds({"key": {"regex": "."}}, envelope) in (True, False)


@given(st.binary())
def test_never_raises_on_any_bytes(data: bytes) -> None:
    """Bytes that are not JSON do not hold."""
    envelope = Envelope.new(source="a", subject="b", data=data)
    assert holds({"data.a": {"regex": "."}, "data": {"exists": True}}, envelope) in (True, False)


@given(st.text(), st.recursive(st.none() | st.text(), lambda it: st.dictionaries(st.text(), it)))
def test_any_where_is_compiled_or_refused(path: str, wanted: object) -> None:
    """Whatever somebody writes, the outcome is a condition or RouteError."""
    for where in ({path: wanted}, {"data.x": wanted}):
        try:
            assert compile_where(where) is not None
        except RouteError:
            continue


def test_half_a_character_matches_nothing() -> None:
    """Text that is not Unicode cannot be searched, and does not end in an exception."""
    envelope = Envelope.new(source="a", subject="b", key="\ud800")
    assert not holds({"key": {"regex": "."}}, envelope)


# --- CEL ------------------------------------------------------------------------------------

CEL: list[tuple[str, bool]] = [
    ("data.params.size > 3", True),
    ("data.params.size > 30", False),
    ("data.task_type == 'render' && priority >= 7", True),
    ("source.startsWith('relay.') && type != subject", True),
    ("data.items.exists(it, has(it.name) && it.name == 'first')", True),
    ("data.params.text.matches('^Gr')", True),
    ("has(data.nowhere)", False),
    ("data.nowhere == 1", False),
    ("data.nowhere != 1", False),
    ("data.task_type > 1", False),
    ("1 / 0 == 1", False),
    ("'x'.matches('(')", False),
    ("data.params.size", False),
    ("data.flag", True),
    ("key == 'u77'", True),
    ("replyto != null && hops == 2 && id == '01JD'", True),
    ("type(data.params.none) == null_type", True),
]


CEL_DATA = json.dumps(DATA).replace(str(10**30), "1").encode()  # CEL has numbers of 64 bits


@pytest.mark.parametrize(("text", "expected"), CEL, ids=[text for text, _ in CEL])
def test_cel(text: str, expected: bool) -> None:
    """Only true holds; an error in the evaluation does not."""
    pytest.importorskip("cel")
    envelope = ENVELOPE.replace(data=CEL_DATA)
    condition = compile_where({}, text)
    assert condition is not None
    assert condition(envelope) is expected


def test_cel_and_where_must_both_hold() -> None:
    """`where_cel` is one more condition."""
    pytest.importorskip("cel")
    both = compile_where({"priority": 7}, "hops == 2")
    assert both is not None
    assert both(ENVELOPE)
    assert not both(ENVELOPE.replace(hops=3))
    assert not both(ENVELOPE.replace(priority=6))


def test_cel_reads_an_attribute_that_is_not_set_as_null() -> None:
    """CEL has no other word for it."""
    pytest.importorskip("cel")
    condition = compile_where({}, "key == null")
    assert condition is not None
    assert condition(BARE)
    assert not condition(ENVELOPE)


@pytest.mark.parametrize("data", NOT_JSON.values(), ids=NOT_JSON)
def test_cel_does_not_hold_on_data_that_is_not_json(data: bytes) -> None:
    """It holds when it does not look inside."""
    pytest.importorskip("cel")
    envelope = Envelope.new(source="a", subject="b", data=data)
    for text, expected in (("has(data.x) || true", False), ("source == 'a'", True)):
        condition = compile_where({}, text)
        assert condition is not None
        assert condition(envelope) is expected


@pytest.mark.parametrize(
    "text",
    ["", "1 +", "data.x ==", "dta.x == 1", "[1].all(x, y == 1)",
     "source.contains(sorce)", "lenght(data.x) == 1", "\ud800", "'open"],
)  # fmt: skip
def test_bad_cel_is_refused(text: str) -> None:
    """What cannot be read, and a name or function that is not there, are errors of the route."""
    pytest.importorskip("cel")
    with pytest.raises(RouteError):
        compile_where({}, text)


CEL_ERRORS = {
    "data.x == ": "line 1, column 11: mismatched input '<EOF>'",
    "true &&\n  && false": "line 2, column 3",
    "sorce == 'a'": "uses 'sorce', which is unknown; did you mean 'source'",
    "source.startWith('a')": "calls 'startWith', which is unknown; did you mean 'startsWith'",
    "size(data.x) === 1": "line 1, column 16",
}


@pytest.mark.parametrize(("text", "said"), CEL_ERRORS.items(), ids=CEL_ERRORS)
def test_errors_of_cel_say_where_and_what(text: str, said: str) -> None:
    """Line, column and reason; for a mistyped word the one that was meant."""
    pytest.importorskip("cel")
    with pytest.raises(RouteError, match=re.escape(said)):
        compile_where({}, text)


DEEP = {
    "brackets": "(" * 2000 + "true" + ")" * 2000,
    "lists": "[" * 150 + "]" * 150,
    "negations": "!" * 4000 + "true",
    "keys": "data" + ".a" * 2000,
    "sums": "1" + "+1" * 2000,
    "what made the parser run out of memory": "!!(!!!!!!(!!!!(((((!!(!!(!!!!((" * 5 + "1",
}


@pytest.mark.parametrize("text", DEEP.values(), ids=DEEP)
def test_cel_that_is_nested_too_deep_is_refused(text: str) -> None:
    """It would be evaluated on the stack of the process."""
    pytest.importorskip("cel")
    with pytest.raises(RouteError):
        compile_where({}, text)


def test_number_of_operators_has_a_limit() -> None:
    """The limit itself is allowed and evaluated, one more is not."""
    pytest.importorskip("cel")
    allowed = "!" * MAX_OPERATORS + "true"
    condition = compile_where({}, allowed)
    assert condition is not None
    assert condition(BARE)
    with pytest.raises(RouteError, match="operators"):
        compile_where({}, "!" + allowed)


SIZES = {
    "size(key) == 2": True,
    "key.size() == 2": True,
    "size (data.tags) == 5": True,
    "data.tags.size() == 5 && data.tags[0].size() == 1": True,
    "size(data.params) == 5": True,
    "key != 'size(' && size(key) == 2": True,
    "size(hops) != 0": False,
    "data.size.size() == 3": True,
}


@pytest.mark.parametrize(("text", "expected"), SIZES.items(), ids=SIZES)
def test_cel_counts_characters(text: str, expected: bool) -> None:
    """`size` of a text is in characters, as the language says; of a number there is none."""
    pytest.importorskip("cel")
    condition = compile_where({}, text)
    assert condition is not None
    data = {**DATA, "params": {str(n): n for n in range(5)}, "size": "abc"}
    assert condition(ENVELOPE.replace(key="群聊", data=json.dumps(data).encode())) is expected


@given(st.text(), ANY_JSON)
@example("data.a", {"a": 10**40})
def test_any_cel_is_compiled_or_refused(text: str, data: object) -> None:
    """Whatever somebody writes, the outcome is a condition or RouteError."""
    pytest.importorskip("cel")
    try:
        condition = compile_where({}, text)
    except RouteError:
        return
    assert condition is not None
    assert condition(Envelope.new(source="a", subject="b", data=data)) in (True, False)


def test_length_of_cel_has_a_limit() -> None:
    """The limit itself is allowed, one character more is not."""
    pytest.importorskip("cel")
    allowed = "true".ljust(MAX_CEL)
    assert compile_where({}, allowed) is not None
    with pytest.raises(RouteError, match="limit"):
        compile_where({}, allowed + " ")


def test_cel_without_its_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The optional library is named by the extra that brings it."""
    monkeypatch.setitem(sys.modules, "cel", None)
    with pytest.raises(RouteError, match=r"hubbub\[cel\]"):
        compile_where({}, "true")
