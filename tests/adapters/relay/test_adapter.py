"""What is not seen over HTTP: metrics, old records, one application with the hub, growth."""

from __future__ import annotations

import gzip
import json
import stat
from pathlib import Path
from typing import cast

from hubbub import Envelope
from hubbub.envelope import CHAT_MESSAGE
from hubbub.testing import FakeClock
from hubbub.web.app import build_app
from hubbub_relay.adapter import RelayAdapter
from hubbub_relay.config import RelaySettings
from hubbub_relay.housekeeping import purge
from hubbub_relay.ids import TaskIds
from tests.adapters.relay.serving import BOSS, SETTINGS, Relay, RunRelay

DAY_S = 86_400


def adapter_of(relay: Relay) -> RelayAdapter:
    return cast("RelayAdapter", relay.core.adapters.get("relay").adapter)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def scraped(relay: Relay) -> str:
    await relay.core.metrics.refresh()
    return relay.core.metrics.render().decode()


async def test_metrics(run_relay: RunRelay) -> None:
    """Those of the protocol page, with the hub's prefix."""
    clock = FakeClock()
    async with run_relay(SETTINGS + 'stale_after = "50s"\n', clock=clock) as relay:
        await relay.task()
        await clock.advance(30)
        await relay.task()
        [first] = await relay.lease(limit=1, lease=1000)
        third = await relay.task()
        await clock.advance(60)
        await relay.callback(third)
        await relay.callback(third)
        text = await scraped(relay)
        for line in (
            'hubbub_relay_tasks{state="pending"} 1.0',
            'hubbub_relay_tasks{state="processing"} 1.0',
            'hubbub_relay_tasks{state="completed"} 1.0',
            "hubbub_relay_oldest_pending_seconds 60.0",
            "hubbub_relay_stale_tasks 1.0",
            "hubbub_relay_duplicate_callbacks_total 1.0",
            'hubbub_relay_requests_total{code="200",endpoint="send"} 3.0',
            "hubbub_relay_request_seconds_count 6.0",
            "hubbub_relay_mirror_lag_records 0.0",
        ):
            assert line in text
        assert first["attempt"] == 1
        await relay.task()
        assert 'hubbub_relay_tasks{state="pending"} 2.0' in await scraped(relay)


async def test_old_records_are_archived_and_removed(run_relay: RunRelay, tmp_path: Path) -> None:
    """After `retention_days`; the newest one stays, so that ids never begin again."""
    clock = FakeClock()
    archive = tmp_path / "archive"
    toml = SETTINGS + f'retention_days = 2\narchive_dir = "{archive}"\n'
    async with run_relay(toml, clock=clock) as relay:
        settings = relay.core.settings("relay", RelaySettings)
        for number in range(3):
            await relay.send(type="message", text=str(number))
        clock._now_us += 3 * DAY_S * 1_000_000
        await relay.send(type="message", text="new")
        before = await relay.logs()
        removed = await purge(relay.core, settings)
        assert removed == 3
        assert await relay.logs() == before[3:]
        [file] = archive.iterdir()
        with gzip.open(file) as lines:
            assert [json.loads(line) for line in lines] == before[:3]
        assert (mode_of(archive), mode_of(file)) == (0o700, 0o600)
        assert await purge(relay.core, settings) == 0


async def test_records_outlive_a_far_jump_of_the_clock(run_relay: RunRelay) -> None:
    """Old ones and cleared ones, until an operator has confirmed the time."""
    clock = FakeClock()
    async with run_relay(SETTINGS + "retention_days = 2\n", clock=clock) as relay:
        settings = relay.core.settings("relay", RelaySettings)
        for clear in (True, False):
            await relay.send(type="message")
            if clear:
                await relay.client.post("/clear", headers={"X-Relay-API-Key": BOSS})
        clock.jump(30 * DAY_S)
        await relay.send(type="message")
        assert await purge(relay.core, settings) == 0
        await relay.core.hold.confirm(clock.now_us())
        assert await purge(relay.core, settings) == 2


async def test_cleared_records_can_be_brought_back_for_7_days(run_relay: RunRelay) -> None:
    """Then they go."""
    clock = FakeClock()
    async with run_relay(clock=clock) as relay:
        settings = relay.core.settings("relay", RelaySettings)
        for _ in range(3):
            await relay.send(type="message")
        await relay.client.post("/clear", headers={"X-Relay-API-Key": BOSS})
        await relay.send(type="message")
        clock._now_us += 6 * DAY_S * 1_000_000
        assert await purge(relay.core, settings) == 0
        clock._now_us += 2 * DAY_S * 1_000_000
        assert await purge(relay.core, settings) == 3


async def test_names_and_tasks_survive_a_restart(run_relay: RunRelay) -> None:
    """Waiting tasks wait, taken ones stay taken, states are known."""
    async with run_relay() as relay:
        taken = await relay.task()
        await relay.lease(lease=600)
        waiting = await relay.task()
    async with run_relay() as relay:
        assert [task["task_id"] for task in await relay.lease()] == [waiting]
        assert await relay.state(taken) == "processing"
        await relay.callback(taken)
        assert await relay.state(taken) == "completed"


async def test_the_adapter_can_be_restarted(relay: Relay) -> None:
    """While it is down its paths answer 503."""
    task_id = await relay.task()
    await adapter_of(relay).stop()
    answer = await relay.client.get("/logs")
    assert answer.status_code == 503
    assert answer.json()["status"] == "error"
    await adapter_of(relay).start(relay.core)
    assert [task["task_id"] for task in await relay.lease()] == [task_id]


async def test_it_stands_beside_the_hub_on_one_port(relay: Relay) -> None:
    """No path of it is taken or refused there."""
    build_app(relay.core, loopback=True)
    assert relay.core.adapters.get("relay").state == "up"


def test_ids_of_one_millisecond_differ() -> None:
    """6 digits count, whatever the clock does."""
    ids = TaskIds(FakeClock())
    made = {ids.next() for _ in range(1000)}
    assert len(made) == 1000
    assert {len(name) for name in made} == {2 + 13 + 6}
    assert TaskIds.of_key("a", "k") == TaskIds.of_key("a", "k") != TaskIds.of_key("b", "k")


async def test_what_is_not_json_is_logged_under_its_type(run_relay: RunRelay) -> None:
    """From another protocol: text as it is, bytes in Base64; chat too."""
    async with run_relay(SETTINGS) as relay:
        await relay.send(type="message", text="hi")  # the name is known from here on
        said: dict[str, dict[str, object]] = {
            "text/plain": {"datacontenttype": "text/plain", "data": "hello"},
            "image/png": {"datacontenttype": "image/png", "data_base64": "aGVsbG8="},
        }
        for kind in ("x.v1", CHAT_MESSAGE):
            for media_type in said:
                await relay.core.publish(
                    Envelope.new(
                        source="api.x",
                        subject="a.b",
                        type=kind,
                        data=b"hello",
                        to=("relay.child",),
                        content_type=media_type,
                        durable=True,
                    )
                )
        logs = [one for one in await relay.logs() if one.get("from") == "api.x"]
        assert [one["cmd"] for one in logs] == ["x.v1", "x.v1", CHAT_MESSAGE, CHAT_MESSAGE]
        assert [one["payload"] for one in logs] == [*said.values()] * 2
