"""The manual's page tells what the code does."""

from __future__ import annotations

import json
import re
from pathlib import Path

from hubbub.observe.metrics import Metrics
from hubbub_relay import wire
from hubbub_relay.metrics import RelayMetrics

PAGE = (Path(__file__).parents[3] / "docs" / "adapters" / "relay.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^### (\w+).*?^```json\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def test_examples_are_read() -> None:
    """The first block of each section is a request, a list of tasks, or a record."""
    first = dict(reversed(BLOCKS))
    assert wire.read_send(first["send"].encode()).cmd == "verify_chart"
    assert wire.read_callback(first["callback"].encode()).status == "completed"
    assert json.loads(first["tasks"])["tasks"][0]["attempt"] == 1
    assert list(json.loads(first["Log"]))[-3:] == ["ts", "id", "ts_ms"]


def test_every_metric_is_named() -> None:
    """None is left out, none is invented."""
    metrics = Metrics()
    RelayMetrics(metrics)
    made = {one.name for one in metrics.described() if one.name.startswith("hubbub_relay_")}
    assert set(re.findall(r"^\| `(hubbub_relay_\w+)`", PAGE, re.MULTILINE)) == made


def test_every_endpoint_is_named() -> None:
    """All nine of them."""
    assert len(re.findall(r"^\| `(?:GET|POST) /api/relay/", PAGE, re.MULTILINE)) == 9
