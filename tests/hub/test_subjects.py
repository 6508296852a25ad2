"""Subjects, patterns, tokens made of foreign text, and the trie."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub.errors import SubjectError
from hubbub.subjects import (
    MAX_SUBJECT,
    MAX_TOKENS,
    SubjectTrie,
    check_pattern,
    check_subject,
    escape,
    is_pattern,
    matches,
    unescape,
)

tokens = st.sampled_from(["a", "b", "c"])
subjects = st.lists(tokens, min_size=1, max_size=5).map(".".join)


def joined(front: list[str], last: str) -> str:
    """Return a pattern of its tokens."""
    return ".".join([*front, last])


patterns = st.builds(
    joined,
    st.lists(tokens | st.just("*"), max_size=4),
    tokens | st.sampled_from(["*", ">"]),
)
any_text = st.text(st.characters(codec=None, exclude_categories=()))


@given(any_text)
def test_escape_is_reversible(text: str) -> None:
    """What was escaped comes back, half surrogate pairs included."""
    assert unescape(escape(text)) == text


@given(any_text.filter(lambda text: len(text) < 40))
def test_escape_makes_one_token_of_anything(text: str) -> None:
    """No text makes a token boundary, a wildcard or a subject that is refused."""
    token = escape(text)
    assert check_subject(f"a.{token}.b").split(".") == ["a", token, "b"]
    assert not is_pattern(token)
    assert "{" not in token


@given(any_text, any_text)
def test_two_texts_never_make_the_same_token(one: str, other: str) -> None:
    """A token cannot be forged by another text."""
    assert (escape(one) == escape(other)) == (one == other)


def naive(pattern: str, subject: str) -> bool:
    """Say the same as `matches`, from what the words mean."""
    wanted, given_tokens = pattern.split("."), subject.split(".")
    if wanted[-1] == ">":
        front = wanted[:-1]
        return len(given_tokens) > len(front) and all(
            w in ("*", t) for w, t in zip(front, given_tokens, strict=False)
        )
    return len(wanted) == len(given_tokens) and all(
        w in ("*", t) for w, t in zip(wanted, given_tokens, strict=True)
    )


@given(patterns, subjects)
def test_a_pattern_covers_what_it_says(pattern: str, subject: str) -> None:
    """`*` is one token, a final `>` one or more."""
    assert matches(pattern, subject) == naive(pattern, subject)


@given(st.lists(patterns, max_size=12), st.data())
def test_the_trie_finds_what_each_pattern_covers(kept: list[str], data: st.DataObject) -> None:
    """After adding and removing, a look-up gives the values of all patterns that cover."""
    trie: SubjectTrie[int] = SubjectTrie()
    for number, pattern in enumerate(kept):
        trie.add(pattern, number)
    gone = data.draw(st.sets(st.sampled_from(range(len(kept))))) if kept else set[int]()
    for number in gone:
        trie.remove(kept[number], number)
    left = {n: p for n, p in enumerate(kept) if n not in gone}
    assert len(trie) == len(left)
    assert sorted(trie) == sorted(left)
    subject = data.draw(subjects)
    assert sorted(trie.find(subject)) == sorted(n for n, p in left.items() if naive(p, subject))


def test_a_value_that_is_not_there_cannot_be_removed() -> None:
    """Removing twice is an error, and leaves the others."""
    trie: SubjectTrie[int] = SubjectTrie()
    trie.add("a.>", 1)
    with pytest.raises(KeyError):
        trie.remove("a.>", 2)
    with pytest.raises(KeyError):
        trie.remove("b", 1)
    assert trie.find("a.b") == [1]


BAD_SUBJECTS = {
    "empty": "",
    "empty token": "a..b",
    "dot at the end": "a.",
    "star": "a.*",
    "rest": "a.>",
    "space": "a b",
    "newline": "a\n",
    "zero": "a\0",
    "line separator": "a\u2028b",
    "half a pair": "a\ud800",
    "too long": "a" * (MAX_SUBJECT + 1),
    "too many tokens": ".".join("a" * (MAX_TOKENS + 1)),
}


@pytest.mark.parametrize("subject", BAD_SUBJECTS.values(), ids=BAD_SUBJECTS)
def test_a_bad_subject_is_refused(subject: str) -> None:
    """It is refused each time, by an error of its own."""
    for _ in range(2):
        with pytest.raises(SubjectError):
            check_subject(subject)


def test_the_longest_subject_is_taken() -> None:
    """The limits themselves are within."""
    assert check_subject("a" * MAX_SUBJECT)
    assert check_subject(".".join("a" * MAX_TOKENS))


@pytest.mark.parametrize("pattern", ["a.>.b", "a*", "a.b>", ">.a", "*a.b"])
def test_a_wildcard_in_a_wrong_place_is_refused(pattern: str) -> None:
    """A wildcard is a whole token, and `>` the last."""
    with pytest.raises(SubjectError):
        check_pattern(pattern)


@given(patterns)
def test_good_patterns_are_taken(pattern: str) -> None:
    """All that patterns may be."""
    assert check_pattern(pattern) == pattern
