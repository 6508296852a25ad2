"""Third-party plugins: found by their entry points, fenced, switched off, remembered."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hubbub import Endpoint, Envelope
from hubbub.config import load_config
from hubbub.core import Core
from hubbub.fence import Plugin
from hubbub.switching import disable, enable
from hubbub.testing import RecordingEndpoint, running_hub, settle
from hubbub.values import Route
from hubbub.watchdog import EXIT_CODE, TICK_S, Inside, Watchdog

ROOT = Path(__file__).parents[2]
Install = Callable[..., None]


def write_package(site: Path, name: str, source: str, *, plugin: str = "") -> None:
    """Write an installed package: its module, and the metadata that pip would write."""
    (site / f"{name}.py").write_text(textwrap.dedent(source), encoding="utf-8")
    info = site / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[hubbub]\n{plugin or name} = {name}\n")


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install packages where only this test finds them."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.setattr(sys, "path", [str(site), *sys.path])
    names: list[str] = []

    def run(name: str, source: str, *, plugin: str = "") -> None:
        write_package(site, name, source, plugin=plugin)
        names.append(name)
        importlib.invalidate_caches()

    yield run
    for name in names:
        sys.modules.pop(name, None)


def state_of(core: Core, name: str) -> str:
    return plugin_of(core, name).state


def plugin_of(core: Core, name: str) -> Plugin:
    found = core.plugins.get(name)
    assert found is not None
    return found


GOOD = """
    import asyncio
    from hubbub import Endpoint, Envelope, Hub, Route, hookimpl
    from hubbub.conversion import Converter

    calls = []

    class Echo(Endpoint):
        async def deliver(self, envelope):
            calls.append(envelope.subject)

    @hookimpl
    def routes():
        return [Route(name="good", match="good.>", to=("plugin.good",))]

    @hookimpl
    def converters():
        return [Converter("good.v1", "better.v1", lambda one: one.replace(type="better.v1"))]

    @hookimpl
    async def startup(hub):
        await asyncio.sleep(0)
        calls.append("startup")
        hub.attach(Echo(address="plugin.good"))

    @hookimpl
    def shutdown(hub):
        calls.append("shutdown")
"""

RAISES = """
    from hubbub import Endpoint, Route, hookimpl
    from hubbub.conversion import Converter

    class Echo(Endpoint):
        async def deliver(self, envelope): ...

    @hookimpl
    def routes():
        return [Route(name="raises", match="raises.>", to=("plugin.raises",))]

    @hookimpl
    def converters():
        return [Converter("raises.v1", "other.v1", lambda envelope: envelope)]

    @hookimpl
    def startup(hub):
        hub.attach(Echo(address="plugin.raises"))

    @hookimpl
    def before_route(envelope):
        if envelope.subject.startswith("bad"):
            raise ValueError("no")
"""


async def publish(core: Core, subject: str) -> str:
    receipt = await core.publish(Envelope.new(source="plugin.test", subject=subject))
    return receipt.reason or receipt.outcome


TABLES = """
    from hubbub import hookimpl

    @hookimpl
    def tables():
        from sqlmodel import Field, SQLModel

        class Foreign(SQLModel, table=True):
            id: int = Field(primary_key=True)

        return [Foreign]
"""

# Loading


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("raise ValueError('broken')", "ValueError: broken"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("import a_module_that_nobody_has", "ModuleNotFoundError"),
        (
            "from hubbub import hookimpl\n@hookimpl\ndef befor_route(envelope): ...",
            "its hooks do not fit",
        ),
        (
            "from hubbub import hookimpl\n@hookimpl\ndef routes(): raise RuntimeError('no routes')",
            "routes: RuntimeError: no routes",
        ),
        (
            "from hubbub import hookimpl\n@hookimpl\nasync def startup(hub): raise SystemExit",
            "startup: SystemExit",
        ),
        (
            TABLES,
            "is not its own",
        ),
    ],
    ids=["exception", "exit", "missing", "unknown hook", "routes", "startup", "tables"],
)
async def test_a_broken_plugin_is_failed_and_the_hub_runs(
    tmp_path: Path, install: Install, source: str, reason: str
) -> None:
    """It is named with the reason; others are not touched."""
    install("hubbub_broken", source, plugin="broken")
    install("hubbub_good", GOOD, plugin="good")
    async with running_hub(tmp_path / "hub") as core:
        broken = plugin_of(core, "broken")
        assert broken.state == "failed"
        assert reason in broken.reason
        assert plugin_of(core, "good").state == "up"
        assert await publish(core, "good.x") == "accepted"


async def test_safe_leaves_third_parties_out(tmp_path: Path, install: Install) -> None:
    """They are not even imported; what came with the hub is."""
    install("hubbub_exits", "raise SystemExit(1)", plugin="exits")
    path = tmp_path / "hub.toml"
    path.write_text(f'[hub]\ndata_dir = "{tmp_path}"\n[adapters.of_exits]\nenabled = true\n')
    core = Core(load_config(path, environ={}), safe=True, environ={})
    await core.start()
    exits = plugin_of(core, "exits")
    assert (exits.state, exits.reason) == ("disabled", "started with --safe")
    assert plugin_of(core, "relay").state == "up"
    await core.stop()


async def test_of_two_adapters_of_one_name_the_second_is_refused(
    tmp_path: Path, install: Install
) -> None:
    """By name of both; the first one runs."""
    source = """
        from hubbub import hookimpl
        from hubbub.config import AdapterSettings

        class Parrot:
            name = "parrot"
            Config = AdapterSettings
            async def start(self, hub): ...
            async def stop(self): ...

        @hookimpl
        def adapters():
            return [Parrot()]
    """
    install("hubbub_first", source, plugin="a_first")
    install("hubbub_second", source, plugin="b_second")
    toml = '[hub]\nplugins = ["a_first", "b_second"]\n[adapters.parrot]\nenabled = true'
    async with running_hub(tmp_path / "hub", toml) as core:
        assert plugin_of(core, "a_first").state == "up"
        second = plugin_of(core, "b_second")
        assert second.state == "failed"
        assert "'parrot' is there already, from plugin 'a_first'" in second.reason
        assert core.adapters.get("parrot").state == "up"


# Quarantine


async def test_three_faults_in_a_row_are_quarantine(tmp_path: Path, install: Install) -> None:
    """Hooks, conversions and endpoints go, routes stay; two and a good call are not enough."""
    install("hubbub_raises", RAISES, plugin="raises")
    async with running_hub(tmp_path / "hub") as core:
        raises = plugin_of(core, "raises")
        for subject in ("bad.1", "bad.2", "fine.1", "bad.3", "bad.4"):
            await publish(core, subject)
        assert (raises.state, raises.faults) == ("up", 2)
        assert core.known("plugin.raises")
        assert core.conversions.chain("raises.v1", ("other.v1",))
        assert await publish(core, "raises.x") == "accepted"
        for _ in range(3):
            await publish(core, "bad.5")
        assert raises.state == "quarantined"
        assert "before_route raised ValueError" in raises.reason
        await core.extensions.ended()
        await settle()
        assert core.router.before_route is None
        assert not core.known("plugin.raises")
        assert core.conversions.chain("raises.v1", ("other.v1",)) is None
        assert "raises" in [route.name for route in core.table]
        assert await publish(core, "raises.x") == "no_endpoint"


async def test_a_quarantined_plugin_stays_so_until_it_is_enabled(
    tmp_path: Path, install: Install
) -> None:
    """Over a restart too, and without being imported."""
    install("hubbub_raises", RAISES, plugin="raises")
    async with running_hub(tmp_path / "hub") as core:
        for _ in range(3):
            await publish(core, "bad")
        await core.extensions.ended()
    del sys.modules["hubbub_raises"]
    async with running_hub(tmp_path / "hub") as core:
        raises = plugin_of(core, "raises")
        assert raises.state == "quarantined"
        assert "3 faults in a row" in raises.reason
        assert "hubbub_raises" not in sys.modules
        await enable(core, raises)
        assert (raises.state, raises.reason) == ("up", "")
        assert await publish(core, "raises.x") == "accepted"
    async with running_hub(tmp_path / "hub") as core:
        assert plugin_of(core, "raises").state == "up"


async def test_a_slow_hook_is_a_fault(tmp_path: Path, install: Install) -> None:
    """Over `hub.hook_budget`, three times in a row."""
    install(
        "hubbub_slow",
        """
        import time
        from hubbub import hookimpl

        @hookimpl
        def before_route(envelope):
            time.sleep(0.005)
        """,
        plugin="slow",
    )
    async with running_hub(tmp_path / "hub", '[hub]\nhook_budget = "1ms"') as core:
        for _ in range(3):
            assert plugin_of(core, "slow").state == "up"
            await publish(core, "any")
        assert plugin_of(core, "slow").state == "quarantined"
        assert "took" in plugin_of(core, "slow").reason


async def test_a_converter_that_raises_fails_its_attempt_and_counts(
    tmp_path: Path, install: Install
) -> None:
    """The delivery is dead in the end; after three faults there is no such converter any more."""
    install(
        "hubbub_convert",
        """
        from hubbub import hookimpl
        from hubbub.conversion import Converter

        def convert(envelope):
            raise ValueError("cannot")

        @hookimpl
        def converters():
            return [Converter("hubbub.event.v1", "other.v1", convert)]
        """,
        plugin="convert",
    )
    async with running_hub(tmp_path / "hub", '[hub]\nbackoff = "1ms"\nattempts = 2') as core:
        picky = RecordingEndpoint("plugin.picky", accepts=("other.v1",))
        core.attach(picky)
        core.table.put(Route(name="picky", match="p.>", to=("plugin.picky",), durable=False))
        for number in range(3):
            await publish(core, f"p.{number}")
            await settle()
        assert plugin_of(core, "convert").state == "quarantined"
        assert picky.taken == []


# Switched by hand


async def test_disable_takes_everything_out_and_enable_puts_it_back(
    tmp_path: Path, install: Install
) -> None:
    """Routes, converters, endpoints; `shutdown` and `startup` are called each time."""
    install("hubbub_good", GOOD, plugin="good")
    async with running_hub(tmp_path / "hub") as core:
        good = plugin_of(core, "good")
        for _ in range(2):
            assert await publish(core, "good.x") == "accepted"
            await disable(core, good, by="admin")
            assert (good.state, good.reason) == ("disabled", "disabled by admin")
            await settle()
            assert await publish(core, "good.x") == "no_route"
            assert not core.known("plugin.good")
            assert core.conversions.chain("good.v1", ("better.v1",)) is None
            await enable(core, good)
            assert good.state == "up"
        calls = sys.modules["hubbub_good"].calls
        assert calls == [
            "startup",
            "good.x",
            "shutdown",
            "startup",
            "good.x",
            "shutdown",
            "startup",
        ]
        await disable(core, good, by="admin")
    async with running_hub(tmp_path / "hub") as core:
        assert plugin_of(core, "good").state == "disabled"


async def test_a_failed_plugin_is_tried_again(tmp_path: Path, install: Install) -> None:
    """Enable imports it once more; mended in between, it is up without a restart."""
    install("hubbub_later", "raise ValueError('not yet')", plugin="later")
    async with running_hub(tmp_path / "hub") as core:
        later = plugin_of(core, "later")
        await enable(core, later)
        assert later.state == "failed"
        file = tmp_path / "site" / "hubbub_later.py"
        file.write_text("# mended, and of another length\n")
        importlib.invalidate_caches()
        await enable(core, later)
        assert state_of(core, "later") == "up"


async def test_an_endpoint_that_somebody_else_attached_later_stays(
    tmp_path: Path, install: Install
) -> None:
    """Only what is a plugin's own goes with it."""
    install("hubbub_good", GOOD, plugin="good")
    async with running_hub(tmp_path / "hub") as core:
        core.hub_for(plugin_of(core, "relay")).attach(Endpoint(address="plugin.good"))
        await disable(core, plugin_of(core, "good"), by="admin")
        assert core.known("plugin.good")


# A hook that never returns


def test_the_watchdog_counts_looks_without_a_pulse() -> None:
    """A pulse begins anew, whatever is under way; the call that holds the loop is blamed."""
    ended: list[int] = []
    told: list[tuple[str, str]] = []

    def remember(plugin: str, reason: str) -> None:
        told.append((plugin, reason))

    watchdog = Watchdog(limit_s=3 * TICK_S, remember=remember, end=ended.append)
    watchdog.inside = Inside("waiting", "startup")
    for _ in range(5):
        watchdog.pulse()
        watchdog.look()
        watchdog.look()
        watchdog.look()
    watchdog.pulse()
    watchdog.look()
    watchdog.inside = Inside("long", "before_route")
    for _ in range(2):
        watchdog.look()
        assert ended == []
    watchdog.look()
    assert ended == [EXIT_CODE]
    assert told[0][0] == "long"
    assert "before_route did not return" in told[0][1]


def test_a_call_that_has_just_begun_holds_no_loop() -> None:
    """Something else held it before; no plugin is blamed for that."""
    ended: list[int] = []
    told: list[str] = []
    watchdog = Watchdog(
        limit_s=2 * TICK_S, remember=lambda plugin, _: told.append(plugin), end=ended.append
    )
    watchdog.pulse()
    watchdog.look()
    watchdog.look()
    watchdog.inside = Inside("short", "before_route")
    watchdog.look()
    assert (ended, told) == ([EXIT_CODE], [])


def test_own_work_of_a_start_may_take_its_time() -> None:
    """A migration, say; a plugin that is loaded may not, nor own work later."""
    ended: list[int] = []
    watchdog = Watchdog(limit_s=TICK_S, remember=lambda plugin, reason: None, end=ended.append)
    watchdog.starting = True
    for _ in range(5):
        watchdog.look()
    assert ended == []
    watchdog.inside = Inside("long", "import")
    watchdog.look()
    assert ended == []
    watchdog.look()
    assert ended == [EXIT_CODE]
    watchdog.inside, watchdog.starting = None, False
    watchdog.look()
    assert ended == [EXIT_CODE, EXIT_CODE]


def test_a_log_that_blocks_does_not_keep_a_held_hub_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    """What holds the loop may hold a lock that its last words need."""
    monkeypatch.setattr("hubbub.watchdog.LAST_WORDS_S", 0.01)
    ended: list[int] = []
    never = threading.Event()

    def remember(plugin: str, reason: str) -> None:
        never.wait()

    watchdog = Watchdog(limit_s=TICK_S, remember=remember, end=ended.append)
    watchdog.inside = Inside("long", "before_route")
    watchdog.look()
    watchdog.look()
    assert ended[0] == EXIT_CODE
    never.set()


def test_the_watchdog_may_be_off() -> None:
    """With 0 a call may take any time."""
    ended: list[int] = []
    watchdog = Watchdog(limit_s=0, remember=lambda plugin, reason: None, end=ended.append)
    watchdog.inside = Inside("long", "before_route")
    for _ in range(100):
        watchdog.look()
    assert ended == []


STUCK = """
    import time
    from hubbub import hookimpl

    @hookimpl
    def before_route(envelope):
        while True:
            time.sleep(0.05)
"""

RUN = """
import asyncio, sys
from pathlib import Path
from hubbub import Envelope
from hubbub.testing import running_hub

async def main():
    toml = "[hub]\\nhook_limit = 5"
    async with running_hub(Path(sys.argv[1]), toml) as core:
        print(core.plugins.get("stuck").state, flush=True)
        await core.publish(Envelope.new(source="plugin.test", subject="any"))
        print("published", flush=True)

asyncio.run(main())
"""


def test_a_hook_that_never_returns_ends_the_hub_once(tmp_path: Path) -> None:
    """With an exit code of its own and the stack; the next start leaves that plugin out."""
    site = tmp_path / "site"
    site.mkdir()
    write_package(site, "hubbub_stuck", STUCK, plugin="stuck")

    # Two processes and one database, whichever the other tests are on: what is remembered counts.
    environ = {name: value for name, value in os.environ.items() if name != "HUBBUB_TEST_STORE"}
    environ["PYTHONPATH"] = str(site)

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", RUN, str(tmp_path / "hub")],
            env=environ,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    first = run()
    assert (first.returncode, first.stdout.split()[0]) == (EXIT_CODE, "up"), first.stderr
    assert "published" not in first.stdout.split()
    assert "plugin.stuck" in first.stdout + first.stderr
    assert "hubbub_stuck.py" in first.stdout + first.stderr
    second = run()
    assert (second.returncode, second.stdout.split()[-2:]) == (0, ["quarantined", "published"])
