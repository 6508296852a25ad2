"""Rewrite the tables of settings in the manual from the models.

    python docs/generate.py           rewrite what is stale
    python docs/generate.py --check   say what is stale and exit with 1

A region is what stands between `<!-- settings: hub -->` and `<!-- end of settings -->`. In
`configuration.md` it names a table of the core; `adapters.<name>` stands for the settings of that
adapter, from `hubbub_<name>.config`, on any page, and `plugins.<name>` for those of that plugin.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from importlib.metadata import entry_points
from pathlib import Path

from hubbub.config import AdapterSettings, Row, Settings, describe
from hubbub.config.models import CoreSettings

DOCS = Path(__file__).resolve().parent
REGION = re.compile(r"(<!-- settings: (\S+) -->\n).*?(<!-- end of settings -->)", re.DOTALL)


def main(arguments: list[str]) -> int:
    """Rewrite or check every page; return the exit code."""
    stale = [page for page in sorted(DOCS.rglob("*.md")) if not is_fresh(page)]
    for page in stale:
        name = page.relative_to(DOCS.parent)
        if "--check" in arguments:
            sys.stdout.write(f"{name} is stale; run python docs/generate.py\n")
        else:
            page.write_text(rendered(page.read_text(encoding="utf-8")), encoding="utf-8")
            sys.stdout.write(f"{name} rewritten\n")
    return 1 if stale and "--check" in arguments else 0


def is_fresh(page: Path) -> bool:
    """Tell whether all regions of a page are as the models say."""
    text = page.read_text(encoding="utf-8")
    return rendered(text) == text


def rendered(text: str) -> str:
    """Return a page with its regions written anew; a region nobody can fill stays as it is."""
    return REGION.sub(lambda found: region(found[1], found[2], found[3], found[0]), text)


def region(start: str, key: str, end: str, before: str) -> str:
    """Write one region."""
    rows = rows_of(key)
    return before if rows is None else f"{start}\n{table(rows)}\n{end}"


def rows_of(key: str) -> list[Row] | None:
    """Return the settings of a table; None when its adapter is not installed.

    Raises:
        KeyError: the core has no such table.
    """
    kind, _, name = key.partition(".")
    if kind == "adapters" and name and name != "<name>":
        model = adapter_model(name)
        return None if model is None else describe(model, key)
    if kind == "plugins" and name:
        model = plugin_model(name)
        return None if model is None else describe(model, key)
    if name == "<name>":
        return describe(AdapterSettings, key)
    rows = [row for row in describe(CoreSettings) if row.key.startswith((f"{key}.", f"{key}[]."))]
    if not rows:
        raise KeyError(f"the core has no table {key!r}")
    return rows


def adapter_model(name: str) -> type[Settings] | None:
    """Return the settings model that `hubbub_<name>.config` defines."""
    try:
        module = importlib.import_module(f"hubbub_{name}.config")
    except ModuleNotFoundError as error:
        if error.name not in (f"hubbub_{name}", f"hubbub_{name}.config"):
            raise
        return None
    models = [
        model
        for _, model in inspect.getmembers(module, inspect.isclass)
        if issubclass(model, AdapterSettings) and model.__module__ == module.__name__
    ]
    return models[0] if models else None


def plugin_model(name: str) -> type[Settings] | None:
    """Return the settings model in the `config` of a plugin that is installed."""
    points = [point for point in entry_points(group="hubbub") if point.name == name]
    if not points:
        return None
    module = importlib.import_module(f"{points[0].module}.config")
    models = [
        model
        for _, model in inspect.getmembers(module, inspect.isclass)
        if issubclass(model, Settings) and model.__module__ == module.__name__
    ]
    return models[0] if models else None


def table(rows: list[Row]) -> str:
    """Write rows as a Markdown table."""
    lines = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for row in rows:
        default = row.default if row.default in ("", "required") else f"`{row.default}`"
        cells = (f"`{row.key}`", row.type, default, row.meaning)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
