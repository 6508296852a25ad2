"""`hubbub plugin new`: a package that works, to be changed into what somebody wants."""

from __future__ import annotations

import keyword
import re
from pathlib import Path
from typing import Final

from hubbub.cli.errors import USAGE, CommandError

__all__ = ["files_of", "names_of", "write_package"]

_NAME: Final = re.compile(r"[a-z][a-z0-9]*([_-][a-z0-9]+)*")

PYPROJECT: Final = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "hubbub-{dashed}"
version = "0.1.0"
description = "A Hubbub plugin"
requires-python = ">=3.11"
readme = "README.md"
dependencies = ["hubbub"]

[project.entry-points."hubbub"]
{name} = "hubbub_{name}"

[tool.hatch.build.targets.wheel]
packages = ["hubbub_{name}"]

[tool.pytest.ini_options]
asyncio_mode = "auto"
"""

MODULE: Final = '''\
"""The plugin {name}: takes what is published on {name}.> and says what it took."""

from __future__ import annotations

from hubbub import Endpoint, Envelope, Hub, Reject, Route, hookimpl

__all__ = ["{cls}", "before_route", "routes", "startup"]


class {cls}(Endpoint):
    """Takes objects with a `text`."""

    def __init__(self, hub: Hub) -> None:
        super().__init__(address="plugin.{name}", concurrency=4)
        self._hub = hub

    async def deliver(self, envelope: Envelope) -> None:
        """Answer one envelope."""
        match envelope.json():
            case {{"text": str(text)}}:
                answer = Envelope.new(
                    source=self.address,
                    subject="answers.{name}",
                    data={{"text": text.upper()}},
                    in_reply_to=envelope.id,
                )
                await self._hub.publish(answer)
            case _:
                raise Reject("it has no text")


@hookimpl
def routes() -> list[Route]:
    """Send what is published on {name}.> to the endpoint."""
    return [Route(name="{name}", match="{name}.>", to=("plugin.{name}",), attempts=3)]


@hookimpl
def startup(hub: Hub) -> None:
    """Bring the endpoint here."""
    hub.attach({cls}(hub))


@hookimpl
def before_route(envelope: Envelope) -> Envelope | None:
    """Give urgent messages priority; it is called for every envelope, so it is short."""
    if envelope.subject == "{name}.urgent" and envelope.priority < 9:
        return envelope.replace(priority=9)
    return None
'''

TESTS: Final = '''\
"""Tests of hubbub_{name}, on a hub without sockets."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path

import hubbub_{name}
from hubbub import Envelope
from hubbub.testing import RecordingEndpoint, running_hub


def _plugins() -> dict[str, object]:
    """Return the plugin, unless it is installed: then the hub finds it by itself."""
    installed = entry_points(group="hubbub").names
    return {{}} if "{name}" in installed else {{"{name}": hubbub_{name}}}


async def test_a_text_is_answered(tmp_path: Path) -> None:
    """In capitals, to whoever asked."""
    async with running_hub(tmp_path, plugins=_plugins()) as hub:
        asker = RecordingEndpoint("plugin.asker")
        hub.attach(asker)
        await hub.publish(
            Envelope.new(source="plugin.asker", subject="{name}.hello", data={{"text": "hello"}})
        )
        (answer,) = await asker.wait_for(1)
        assert answer.json() == {{"text": "HELLO"}}


def test_urgent_messages_have_priority() -> None:
    """Others stay as they are."""
    urgent = Envelope.new(source="plugin.asker", subject="{name}.urgent")
    changed = hubbub_{name}.before_route(urgent)
    assert changed is not None
    assert changed.priority == 9
    other = Envelope.new(source="plugin.asker", subject="{name}.other")
    assert hubbub_{name}.before_route(other) is None
'''

README: Final = """\
# hubbub-{dashed}

A plugin for Hubbub. It takes what is published on `{name}.>` and answers in capitals.

```sh
pip install -e .        # into the environment of the hub
pytest                  # its tests; they want pytest and pytest-asyncio
hubbub plugin ls        # it is there
hubbub run              # start the hub again, and it works
```
"""


def names_of(name: str) -> dict[str, str]:
    """Return how a plugin is called in each place.

    Raises:
        CommandError: no name for a package.
    """
    bare = name.removeprefix("hubbub-").removeprefix("hubbub_")
    if not _NAME.fullmatch(bare) or keyword.iskeyword(bare):
        raise CommandError(
            f"{name!r} is no name for a plugin; use small letters, digits and '-', "
            "and begin with a letter, such as word-count",
            exit_code=USAGE,
        )
    underscored = bare.replace("-", "_")
    words = underscored.split("_")
    return {
        "name": underscored,
        "dashed": underscored.replace("_", "-"),
        "cls": "".join(word.capitalize() for word in words) + "Endpoint",
    }


def files_of(name: str) -> dict[str, str]:
    """Return the files of a new package by their paths."""
    names = names_of(name)
    package, tests = f"hubbub_{names['name']}", f"tests/test_hubbub_{names['name']}.py"
    return {
        "pyproject.toml": PYPROJECT.format(**names),
        "README.md": README.format(**names),
        f"{package}/__init__.py": MODULE.format(**names),
        f"{package}/py.typed": "",
        tests: TESTS.format(**names),
    }


def write_package(name: str, folder: Path | None) -> Path:
    """Write a new package; nothing that is there is written over.

    Raises:
        CommandError: no name, or the folder is not empty.
    """
    files = files_of(name)
    folder = Path(f"hubbub-{names_of(name)['dashed']}") if folder is None else folder
    try:
        if folder.exists() and any(folder.iterdir()):
            raise CommandError(f"{folder} is there and not empty; name another with --dir")
        for path, text in files.items():
            file = folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CommandError(f"cannot write {folder}: {error.strerror}") from error
    return folder
