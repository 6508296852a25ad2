"""The manual's page tells what the code does."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from hubbub.observe.metrics import Metrics
from hubbub_kenko import session, wire
from hubbub_kenko.chat import MessageData
from hubbub_kenko.metrics import KenkoMetrics

PAGE = (Path(__file__).parents[3] / "docs" / "adapters" / "kenko.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```json\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
FROM_CLIENTS = {"heartbeat", "ping", "ack", "runner.output"}


@pytest.mark.parametrize("block", BLOCKS)
def test_examples_are_read(block: str) -> None:
    """What clients send is decoded, what the hub sends is encoded just so."""
    frame = json.loads(block)
    data = frame.get("data", {})
    if frame["type"] in FROM_CLIENTS or "name" in data or "reply_to" in data:
        assert wire.decode(block).kind == frame["type"]
    elif frame["type"] == "message":
        assert set(data) <= set(MessageData.__struct_fields__)
    else:
        frames = {
            "start": wire.START,
            "pause": wire.pause(data.get("reason", "")),
            "error": wire.error(data.get("code"), data.get("message"), data.get("ref")),
            "register": wire.registered(data.get("id"))
            if data.get("success")
            else wire.refused(data.get("code"), data.get("message")),
        }
        assert json.loads(wire.encode(frames[frame["type"]])) == frame


def test_every_metric_is_named() -> None:
    """None is left out, none is invented."""
    metrics = Metrics()
    KenkoMetrics(metrics)
    made = {one.name for one in metrics.described() if one.name.startswith("hubbub_kenko_")}
    assert set(re.findall(r"^\| `(hubbub_kenko_\w+)`", PAGE, re.MULTILINE)) == made


def test_every_close_code_is_named() -> None:
    """Those that the hub closes with."""
    codes = {
        session.SHUTDOWN,
        session.TOO_LARGE,
        session.UNREADABLE,
        session.NOT_REGISTERED,
        session.HEARTBEAT_MISSED,
        session.ABUSE,
        session.REMOVED,
        session.REPLACED,
        session.UNTRUSTED,
    }
    assert {int(code) for code in re.findall(r"^\| close (\d+)", PAGE, re.MULTILINE)} == codes
