"""Texts are found along the chain of languages, and filled in once."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub.errors import InvalidError, NotFoundError
from hubbub_i18n.catalogues import (
    MAX_KEYS,
    MAX_LOCALES,
    MAX_TEXT,
    CatalogueError,
    Catalogues,
    render,
)
from hubbub_i18n.locales import canonical, chain


@pytest.mark.parametrize(
    ("said", "written"),
    [("zh_cn", "zh-CN"), ("EN", "en"), ("ZH-hant-tw", "zh-Hant-TW"), ("de-1996", "de-1996")],
)
def test_names_of_languages_are_written_one_way(said: str, written: str) -> None:
    """As BCP 47 writes them."""
    assert canonical(said) == written


@pytest.mark.parametrize("said", ["", "x", "../en", "en/../zh", "en\0", "a-b-c-d-e", "日本"])
def test_other_texts_are_no_languages(said: str) -> None:
    """No path, no nothing."""
    with pytest.raises(ValueError, match="is no language"):
        canonical(said)


def test_the_chain_is_exact_then_language_then_default() -> None:
    """And nothing twice."""
    assert chain("zh-Hant-TW", "zh-CN") == ("zh-Hant-TW", "zh-Hant", "zh", "zh-CN")
    assert chain("zh-CN", "zh-CN") == ("zh-CN", "zh")


def test_a_text_is_looked_for_along_the_chain() -> None:
    """Exact, language, default, the key itself."""
    texts = Catalogues("zh-CN")
    texts.change("zh-CN", {"a": "默认", "b": "默认", "c": "默认"})
    texts.change("en", {"a": "language", "b": "language"})
    texts.change("en-GB", {"a": "exact"})
    assert [texts.say(key, {}, "en-GB") for key in "abcd"] == ["exact", "language", "默认", "d"]
    assert texts.say("a", {}, None) == "默认"


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{name}!", "{n}!"),
        ("{n} of {n}", "3 of 3"),
        ("{missing}", "{missing}"),
        ("{0} {} {n.real} {n!r} {n:x}", "{0} {} {n.real} {n!r} {n:x}"),
        ("{yes} {list}", "true [1]"),
    ],
)
def test_only_names_are_filled_in(template: str, text: str) -> None:
    """No attribute, no index, no format; and what was filled in is not read again."""
    assert render(template, {"name": "{n}", "n": 3, "yes": True, "list": [1]}) == text


@given(st.text(), st.dictionaries(st.text(), st.text()))
def test_rendering_never_fails(template: str, args: dict[str, str]) -> None:
    """Whatever the template, without a place to fill in it is the text."""
    said = render(template, args)
    if "{" not in template:
        assert said == template


def test_the_bundled_languages_have_the_same_keys() -> None:
    """So that nothing is missing on the first day."""
    texts = Catalogues()
    texts.read_bundled()
    assert set(texts.locales()) == {"en", "zh-CN"}
    assert set(texts.texts("en")) == set(texts.texts("zh-CN")) == texts.keys()


def test_a_folder_holds_before_what_is_bundled(tmp_path: Path) -> None:
    """File by file, key by key; other files are left alone."""
    (tmp_path / "en.toml").write_text('[kenko.pause]\nadmin = "stop!"\n')
    (tmp_path / "README").write_text("not a catalogue")
    texts = Catalogues()
    texts.read_bundled()
    texts.read_folder(tmp_path)
    assert texts.say("kenko.pause.admin", {}, "en") == "stop!"
    assert texts.say("kenko.pause.error", {}, "en").startswith("paused")


@pytest.mark.parametrize("content", ["a = ", "a = 3", "[a]\nb = []", b"\xff"])
def test_a_bad_catalogue_is_named(tmp_path: Path, content: str | bytes) -> None:
    """The file, and what is wrong with it."""
    path = tmp_path / "en.toml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(CatalogueError, match=r"en\.toml"):
        Catalogues().read_folder(tmp_path)


def test_limits_hold_at_their_edges() -> None:
    """The last one goes in, one more does not."""
    texts = Catalogues()
    texts.check("en", {"k": "x" * MAX_TEXT})
    with pytest.raises(InvalidError):
        texts.check("en", {"k": "x" * (MAX_TEXT + 1)})
    texts.check("en", {f"k{n}": "" for n in range(MAX_KEYS)})
    with pytest.raises(InvalidError):
        texts.check("en", {f"k{n}": "" for n in range(MAX_KEYS + 1)})
    texts.check("en", {"k" * 128: ""})
    for key in ("k" * 129, "", "a b", "a\0"):
        with pytest.raises(InvalidError):
            texts.check("en", {key: ""})
    for number in range(MAX_LOCALES):
        texts.change(f"x{chr(97 + number // 26)}{chr(97 + number % 26)}", {"k": ""})
    texts.check("xaa", {"k": ""})
    with pytest.raises(InvalidError):
        texts.check("zz", {"k": ""})


def test_a_change_is_taken_back() -> None:
    """What the file says holds again; a language of changes alone goes with its last one."""
    texts = Catalogues()
    texts.change("fr", {"k": "x"})
    texts.change("fr", {"k": None})
    with pytest.raises(NotFoundError):
        texts.texts("fr")
