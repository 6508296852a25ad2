"""The test kit holds what it promises; the adapter of the manual passes its suite as printed."""

from __future__ import annotations

import re
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from hubbub import Endpoint, Hub, hookimpl
from hubbub.config import AdapterSettings
from hubbub.testing import AdapterSuite, FakeClock, counted, running_hub, serving_hub
from hubbub.testing.suite import Served

PAGE = Path(__file__).parents[2] / "docs" / "writing-adapters.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
SUITE = sorted(name for name in dir(AdapterSuite) if name.startswith("test_"))


def module_of(name: str, source: str) -> ModuleType:
    """Make a module of text."""
    module = ModuleType(name)
    exec(compile(source, f"{name}.py", "exec", dont_inherit=True), vars(module))
    return module


@pytest.fixture
def of_the_manual(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The suite of the manual's adapter."""
    adapter, tests, *_ = BLOCKS
    monkeypatch.setitem(sys.modules, "hubbub_lines", module_of("hubbub_lines", adapter))
    return vars(module_of("test_hubbub_lines", tests))["TestLines"]()


@pytest.mark.parametrize("name", SUITE)
async def test_the_example_adapter_passes_its_suite(
    tmp_path: Path, of_the_manual: Any, name: str
) -> None:
    """Adapter and tests run as they are printed."""
    test: Callable[[Path], Awaitable[None]] = getattr(of_the_manual, name)
    await test(tmp_path)


def test_the_manual_lists_the_tests_of_the_suite() -> None:
    """Each of them, and no other."""
    assert (
        sorted(re.findall(r"^\| `(test_\w+)` \|", PAGE.read_text("utf-8"), re.MULTILINE)) == SUITE
    )


async def test_the_suite_notices_a_silent_adapter(tmp_path: Path, of_the_manual: Any) -> None:
    """One that publishes nothing does not pass."""
    of_the_manual.subject = "nobody.says.this"
    async with of_the_manual.serving(tmp_path) as served:
        peer = await of_the_manual.connect(served)
        await of_the_manual.say(peer, "hello", "00-x")
        with pytest.raises(TimeoutError):
            await served.recorder.wait_for(1, timeout_s=0.1)
        await peer.close()


async def test_the_suite_notices_code_that_fails(tmp_path: Path, of_the_manual: Any) -> None:
    """An exception in a connection is not lost in the log."""

    async def fail(served: Served) -> None:
        peer = await of_the_manual.connect(served)
        await peer.send(b"hello\n")
        await peer.rest()
        await peer.close()

    def broken(*_: object) -> bytes:
        raise RuntimeError("a bug")

    sys.modules["hubbub_lines"].Guest.answer = broken
    with pytest.raises(AssertionError):
        async with of_the_manual.serving(tmp_path) as served:
            await fail(served)


class Fragile:
    """An adapter that cannot start the first times."""

    name = "fragile"
    Config = AdapterSettings

    def __init__(self) -> None:
        self.failures = 2

    @hookimpl
    def adapters(self) -> list[Any]:
        return [self]

    async def start(self, hub: Hub) -> None:
        hub.attach(Endpoint(address="fragile.peer"))
        if self.failures:
            self.failures -= 1
            raise OSError("upstream is away")

    async def stop(self) -> None:
        pass


async def test_an_adapter_that_cannot_start_is_tried_again(tmp_path: Path) -> None:
    """After 1 second, then after 2, by the hub's clock."""
    clock, fragile = FakeClock(), Fragile()
    toml = "[adapters.fragile]\nenabled = true\n"
    async with running_hub(tmp_path, toml, clock=clock, plugins={"fragile": fragile}) as hub:
        running = hub.adapters.get("fragile")
        assert (running.state, running.reason) == ("degraded", "OSError: upstream is away")
        assert counted(hub, "hubbub_adapter_up", adapter="fragile") == 0
        states: list[str] = []
        for seconds in (1, 1.9, 0.2):
            await clock.advance(seconds)
            states.append(running.state)
        assert states == ["degraded", "degraded", "up"]
        assert counted(hub, "hubbub_adapter_up", adapter="fragile") == 1


async def test_two_hubs_side_by_side(tmp_path: Path) -> None:
    """Each on ports and data of its own."""
    async with serving_hub(tmp_path / "a") as one, serving_hub(tmp_path / "b") as two:
        assert one.main.url != two.main.url
    assert (one.core.state, two.core.state) == ("stopped", "stopped")
