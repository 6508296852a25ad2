"""The manual of the settings is complete, fresh, and its examples work."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from hubbub.config import AdapterSettings, RouteSettings, Settings, describe, load_config
from hubbub.config.models import CoreSettings

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "configuration.md"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
EXAMPLES = [
    pytest.param(text, id=f"{page.relative_to(ROOT)}:{number}")
    for page in sorted((ROOT / "docs").rglob("*.md"))
    for number, (kind, text) in enumerate(FENCE.findall(page.read_text(encoding="utf-8")))
    if kind == "toml" and "[project" not in text
]


def test_tables_in_the_manual_are_fresh() -> None:
    """A changed model wants `python docs/generate.py`."""
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "generate.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("model", [CoreSettings, AdapterSettings, RouteSettings])
def test_every_setting_says_what_it_means(model: type[Settings]) -> None:
    """No key is without a sentence."""
    rows = describe(model)
    assert rows
    assert [row.key for row in rows if not row.meaning.endswith(".")] == []


def test_every_setting_of_the_core_is_in_the_manual() -> None:
    """Only the raw tables of adapters and plugins have pages of their own."""
    page = PAGE.read_text(encoding="utf-8")
    keys = [row.key for row in describe(CoreSettings)]
    missing = [key for key in keys if f"| `{key}` |" not in page]
    assert missing == ["routes", "adapters", "plugins"]


@pytest.mark.parametrize("text", EXAMPLES)
def test_examples_of_the_manual_load(tmp_path: Path, text: str) -> None:
    """Each block of TOML is a hub.toml that the core accepts."""
    path = tmp_path / "hub.toml"
    path.write_text(text, encoding="utf-8")
    load_config(path, environ={})


def test_rows_show_units_and_ranges() -> None:
    """Types, ranges and defaults are written as in hub.toml."""
    rows = {row.key: (row.type, row.default) for row in describe(CoreSettings)}
    assert rows["hub.port"] == ("integer, 0 to 65535", "17680")
    assert rows["hub.timeout"] == ('duration, over "0s"', '"30s"')
    assert rows["hub.max_body"] == ('size, at least "1B"', '"1MiB"')
    assert rows["routes[].timeout"] == ('duration, over "0s"', "")
    assert rows["routes[].name"] == ("string", "required")
    assert rows["log.format"] == ('"auto" or "json" or "console"', '"auto"')


def test_the_shipped_file_has_every_setting_with_its_default() -> None:
    """As a line that holds, or commented; examples stand where there is no default."""
    shipped = (ROOT / "hub.toml").read_text(encoding="utf-8").partition("\n# --- adapters")[0]
    lines = [re.sub(r"^# (?=\w+ = |\[)", "", line) for line in shipped.splitlines()]
    tree = tomllib.loads("\n".join(line for line in lines if not line.startswith("#")))
    for row in describe(CoreSettings):
        if row.key in ("routes", "adapters", "plugins") or "[]" in row.key:
            continue
        said: Any = tree
        for key in row.key.split("."):
            assert key in said, f"hub.toml says nothing of {row.key}"
            said = said[key]
        if row.default not in ("", "required", "[]"):
            assert said == tomllib.loads(f"x = {row.default}")["x"], row.key
