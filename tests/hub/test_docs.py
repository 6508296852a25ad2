"""The manual holds: blocks parse, links lead somewhere, examples run, numbers are right."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
import sys
import tomllib
from collections.abc import Awaitable, Callable, Iterator
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import cast

import pytest

from hubbub.config import describe, load_config
from hubbub.config.models import CoreSettings
from hubbub.hookspecs import Hooks
from hubbub_octohub.config import OctohubSettings

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
DECISIONS = sorted((DOCS / "decisions").glob("*.md"))
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"(?<!!)\[[^\]\n]*\]\(([^)\s]+)\)")
CODE = re.compile(r"^```.*?^```$|`[^`\n]*`", re.DOTALL | re.MULTILINE)
LIMIT = re.compile(r"\| .+ \| (.+) \| `([\w.]+)` \| .+ \| `(tests/[\w/]+\.py)::(\w+)` \|")
LIMITS_HEAD = "| limit | default | setting or name | over it, a client sees | test |"

PARSERS: dict[str, Callable[[str], object]] = {"json": json.loads, "toml": tomllib.loads}
HOOK_FACTS = ("Args:", "Returns:", "Order:", "Errors:", "Since:")
SHORT_FORMS = {"MiB": 1024**2, "ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "day": 86400.0}


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(page: Path, kind: str) -> list[str]:
    """Return the fenced blocks of one kind."""
    return [text for found, text in FENCE.findall(text_of(page)) if found == kind]


BLOCKS = [
    pytest.param(kind, text, id=f"{named(page)}:{kind}:{number}")
    for page in PAGES
    for kind in PARSERS
    for number, text in enumerate(blocks(page, kind))
]


# Pages


@pytest.mark.parametrize(("kind", "text"), BLOCKS)
def test_blocks_parse(kind: str, text: str) -> None:
    """What is marked as JSON or TOML is that."""
    PARSERS[kind](text)


@pytest.mark.parametrize("text", blocks(ROOT / "README.md", "toml"))
def test_settings_of_the_readme_load(tmp_path: Path, text: str) -> None:
    """Each block of TOML is a hub.toml that the core accepts."""
    path = tmp_path / "hub.toml"
    path.write_text(text, encoding="utf-8")
    load_config(path, environ={})


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as they are made of their text."""
    text = FENCE.sub("", text_of(page))
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def links(page: Path) -> Iterator[str]:
    """Yield where a page points to inside the repository."""
    for target in LINK.findall(CODE.sub("", text_of(page))):
        if not target.startswith(("http:", "https:", "mailto:")):
            yield target


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    """Each link inside the repository names a file that is there, and a heading of it."""
    for target in links(page):
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), target
        assert path.is_relative_to(ROOT), target
        if anchor:
            assert anchor in anchors(path), target


def test_every_page_can_be_found() -> None:
    """From the README every page of the manual is reached by links."""
    seen: set[Path] = set()
    to_read = [ROOT / "README.md"]
    while to_read:
        page = to_read.pop()
        if page in seen or page.suffix != ".md" or not page.exists():
            continue
        seen.add(page)
        to_read += [(page.parent / link.partition("#")[0]).resolve() for link in links(page)]
    assert sorted(map(named, set(PAGES) - seen)) == []


def test_the_readme_is_short() -> None:
    """Whoever comes first reads it to its end."""
    assert len(text_of(ROOT / "README.md").splitlines()) < 150


def test_decisions_are_numbered_in_order() -> None:
    """No number is missing or used twice."""
    numbers = [int(page.name.partition("-")[0]) for page in DECISIONS]
    assert numbers == list(range(1, len(DECISIONS) + 1))


@pytest.mark.parametrize("page", DECISIONS, ids=named)
def test_decisions_say_context_choice_and_cost(page: Path) -> None:
    """Each has these three headings, in this order, and its number in its title."""
    text = text_of(page)
    assert text.startswith(f"# {page.name.partition('-')[0]}: ")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Context", "Choice", "Cost"]


# Hooks and plugins


def hooks() -> list[str]:
    return [name for name, _ in inspect.getmembers(Hooks, inspect.isfunction)]


@pytest.mark.parametrize("name", hooks())
def test_hooks_are_described(name: str) -> None:
    """The docstring of a hook says five things, in order, and the manual shows its arguments."""
    hook = cast("Callable[..., object]", getattr(Hooks, name))
    doc = inspect.getdoc(hook) or ""
    places = [doc.find(f"\n{fact}") for fact in HOOK_FACTS]
    assert -1 not in places
    assert places == sorted(places)
    arguments = [each for each in inspect.signature(hook).parameters if each != "self"]
    described = doc[places[0] : places[1]]
    assert [each for each in arguments if f"{each}: " not in described] == []
    assert f"`{name}({', '.join(arguments)})" in text_of(DOCS / "plugins.md")


def module_of(name: str, source: str) -> ModuleType:
    """Make a module of text."""
    module = ModuleType(name)
    exec(compile(source, f"{name}.py", "exec"), vars(module))
    return module


async def test_the_example_plugin_passes_its_tests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plugin of the manual and its tests run as they are printed."""
    plugin, tests = blocks(DOCS / "plugins.md", "python")
    monkeypatch.setitem(sys.modules, "hubbub_shout", module_of("hubbub_shout", plugin))
    found = {
        name: cast("Callable[[Path], Awaitable[None]]", test)
        for name, test in vars(module_of("test_hubbub_shout", tests)).items()
        if name.startswith("test_")
    }
    assert len(found) == 2
    for name, test in found.items():
        await test(tmp_path / name)


# Numbers


def value_of(text: str) -> object:
    """Read a value of the table of limits: `1 MiB`, `30 s`, `512`, `none`."""
    if text == "none":
        return 0
    number, _, unit = text.partition(" ")
    return int(number) * SHORT_FORMS[unit] if unit else int(number)


def limit_rows(page: Path) -> Iterator[str]:
    """Yield the rows of a page's tables of limits."""
    inside = False
    for line in text_of(page).splitlines():
        inside = line.startswith("|") and (inside or line == LIMITS_HEAD)
        if inside and line != LIMITS_HEAD and not line.startswith("|---"):
            yield line


ROWS = [
    pytest.param(row, id=f"{named(page)}:{row.split('|')[1].strip()}")
    for page in PAGES
    for row in limit_rows(page)
]
LIMITS = [found for row in ROWS if (found := LIMIT.fullmatch(str(row.values[0]))) is not None]


@pytest.mark.parametrize("row", ROWS)
def test_a_limit_says_all_that_is_to_know(row: str) -> None:
    """Each row has its five cells."""
    assert LIMIT.fullmatch(row) is not None, (
        f"complete this row of a table of limits:\n{row}\nas\n"
        "| limit | default | `hub.setting`, or `hubbub.module.NAME` | what a client sees over it | "
        "`tests/hub/test_limits.py::test_name` |"
    )


def source_of_test(path: str, name: str) -> str | None:
    """Return the text of a test with its parameters; None when there is none of that name."""
    text = (ROOT / path).read_text(encoding="utf-8") if (ROOT / path).is_file() else ""
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name:
            first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
            return "\n".join(text.splitlines()[first - 1 : node.end_lineno])
    return None


@pytest.mark.parametrize(
    ("name", "path", "test"), [found.group(2, 3, 4) for found in LIMITS], ids=str
)
def test_limits_are_tested(name: str, path: str, test: str) -> None:
    """The test that a row names is there, and says the name of the limit."""
    source = source_of_test(path, test)
    assert source is not None, f"{path} has no function {test}: the row of {name} names it"
    last = name.rpartition(".")[2]
    assert re.search(rf"\b{last}\b", source), (
        f"{path}::{test} says nothing of {last}: use the constant or the setting there, or name "
        "it in its docstring, or name another test in the row"
    )


def test_limits_stand_in_one_table() -> None:
    """That of Operating; a page of an adapter has those of its protocol alone."""
    pages = {named(page) for page in PAGES if next(limit_rows(page), None)}
    assert {page for page in pages if "/adapters/" not in page} == {"docs/operating.md"}
    names = [found.group(2) for found in LIMITS]
    assert [name for name in names if names.count(name) > 1] == []


@pytest.mark.parametrize(("text", "name"), [found.group(1, 2) for found in LIMITS], ids=str)
def test_limits_are_those_of_the_code(text: str, name: str) -> None:
    """A limit in the manual is the default of its setting, or the constant it names."""
    head, _, last = name.rpartition(".")
    if head == "guards":
        assert getattr(CoreSettings().guards, last) == ()
        return
    if head.startswith("hubbub"):
        constant: object = getattr(importlib.import_module(head), last)
        assert constant == value_of(text)
        return
    if head == "adapters.octohub":
        table: object = OctohubSettings()
    else:
        assert name in {row.key for row in describe(CoreSettings)}
        table = attrgetter(head)(CoreSettings())
    default: object = getattr(table, last)
    assert default == value_of(text)


# Names


def public_modules() -> Iterator[Path]:
    """Yield the modules that others may import from."""
    for root in ("hub", "adapters", "plugins"):
        for path in sorted((ROOT / root).rglob("*.py")):
            migrates = "migrations" in path.parts
            if not migrates and path.name != "__main__.py" and not path.stem.endswith("_pb2"):
                yield path


def in_order(name: str) -> tuple[int, str]:
    """Sort as the linter does: constants, classes, the rest."""
    kind = 0 if name.isupper() and len(name) > 1 else 1 if name[0].isupper() else 2
    return kind, name


@pytest.mark.parametrize("path", list(public_modules()), ids=named)
def test_modules_say_what_is_public(path: Path) -> None:
    """A module that defines anything public has `__all__`, sorted, without repetition."""
    tree = ast.parse(text_of(path))
    public: object = None
    defines = False
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id="__all__")], value=value):
                public = ast.literal_eval(value)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                defines |= not name.startswith("_")
            case ast.ClassDef(name=name):
                defines |= not name.startswith("_")
            case _:
                pass
    if public is None:
        assert not defines
        return
    names = cast("list[str]", public)
    assert names == sorted(set(names), key=in_order)
