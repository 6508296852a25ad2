"""The locator finds every key that the parser of the standard library finds."""

from __future__ import annotations

import tomllib
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub.config.lines import Keys, locate, split_key

DOCUMENT = '''\
# [not.a.table]
top = 1

[hub]   # a comment with ] and = in it
name = "a # b ] } = \\" c"
"quoted.key" = 'x'
list = [
    1, # one, with a comma
    [2, 3],
    { a = 1, b.c = [4] },
    1979-05-27 07:32:00,
]
text = """
[no.header]
key = 1
"quotes" and \\""" more """""
raw = \'\'\'
a = 2 \'\'\'
after = true

[adapters."odd name".inner]
x.y.z = 1979-05-27T07:32:00Z

[[routes]]
name = "first"
[[routes.test]]
to = []
[[routes.test]]
to = ["a"]

[[routes]]
name = "second"
where = { "data.x" = { lt = 5 }, other = "}" }
[routes.labels]
gpu = "yes"
'''

LINES: dict[Keys, int] = {
    ("top",): 2,
    ("hub",): 4,
    ("hub", "quoted.key"): 6,
    ("hub", "list"): 7,
    ("hub", "list", 0): 8,
    ("hub", "list", 1, 1): 9,
    ("hub", "list", 2, "b", "c", 0): 10,
    ("hub", "list", 3): 11,
    ("hub", "text"): 13,
    ("hub", "raw"): 17,
    ("hub", "after"): 19,
    ("adapters", "odd name", "inner", "x", "y", "z"): 22,
    ("routes", 0): 24,
    ("routes", 0, "test", 0, "to"): 27,
    ("routes", 0, "test", 1, "to", 0): 29,
    ("routes", 1, "name"): 32,
    ("routes", 1, "where", "data.x", "lt"): 33,
    ("routes", 1, "labels", "gpu"): 35,
}

NAMES = st.sampled_from(["a", "b-c", "d.e", "f g", ""])
VALUES = st.recursive(
    st.sampled_from(["1", "true", '"x # ]"', "'}'", '"""\n[a]\n"""', "1979-05-27 07:32:00"]),
    lambda inner: st.lists(inner, max_size=3).map(lambda each: f"[ # list\n{', '.join(each)}]"),
    max_leaves=5,
)


def paths(value: object, keys: Keys = ()) -> set[Keys]:
    """Return every place of a parsed document."""
    found = {keys} if keys else set[Keys]()
    if isinstance(value, dict):
        for key, inner in cast("dict[str, object]", value).items():
            found |= paths(inner, (*keys, key))
    elif isinstance(value, list):
        for index, inner in enumerate(cast("list[object]", value)):
            found |= paths(inner, (*keys, index))
    return found


@pytest.mark.parametrize(("keys", "line"), LINES.items(), ids=map(str, LINES))
def test_each_key_has_its_line(keys: Keys, line: int) -> None:
    """Headers, dotted keys, strings over lines, arrays and inline tables keep the count."""
    assert locate(DOCUMENT)[keys] == line


def test_every_place_is_located_and_no_other() -> None:
    """The locator and the parser agree on what is there."""
    assert set(locate(DOCUMENT)) == paths(tomllib.loads(DOCUMENT))


def test_line_ends_of_windows_count_once() -> None:
    """A file with CRLF has the same lines."""
    assert locate(DOCUMENT.replace("\n", "\r\n")) == locate(DOCUMENT)


@given(st.dictionaries(NAMES, st.dictionaries(NAMES, VALUES)))
def test_made_documents_are_located_whole(tables: dict[str, dict[str, str]]) -> None:
    """Whatever stands in a valid document, each place has a line."""
    text = "".join(
        f'[["{name}"]]\n' + "".join(f'"{key}" = {value}\n' for key, value in table.items())
        for name, table in tables.items()
    )
    assert set(locate(text)) == paths(tomllib.loads(text))


@given(st.text(alphabet="[]{}=\"'#., \n\\ab1"))
def test_any_text_is_located_without_failing(text: str) -> None:
    """Text that is not TOML gives what was found before the first surprise."""
    assert all(line >= 1 for line in locate(text).values())


def test_dotted_keys_are_split_at_dots_outside_quotes() -> None:
    """Quoted parts keep their dots."""
    assert split_key('a . "b.c".d') == ("a", "b.c", "d")
    with pytest.raises(ValueError, match="not a dotted key"):
        split_key("a..b")
