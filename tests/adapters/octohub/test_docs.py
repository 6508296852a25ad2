"""The manual's page tells what the code does."""

from __future__ import annotations

import json
import re
from pathlib import Path

from starlette.routing import Route, WebSocketRoute

from hubbub.observe.metrics import Metrics
from hubbub_octohub import wire
from hubbub_octohub.adapter import OctohubAdapter
from hubbub_octohub.admin import PREFIX, admin_routes
from hubbub_octohub.desk import read_task
from hubbub_octohub.metrics import OctohubMetrics

PAGE = (Path(__file__).parents[3] / "docs" / "adapters" / "octohub.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```json\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def test_examples_are_read() -> None:
    """Frames of nodes, of users, and a task, in the order of the page."""
    connected, ready, task, result, ask, submission = BLOCKS
    assert json.loads(wire.connected("pc_id", "node_1", "node_1-1", now_s=1_700_000_000)) == (
        json.loads(connected)
    )
    said = wire.read_node_frame(ready)
    assert isinstance(said, wire.NodeReady)
    assert (said.task_types, said.features) == (("render",), frozenset({"ack", "cancel"}))
    assert {"type", "action", "task_id", "task_type", "data"} <= json.loads(task).keys()
    assert wire.read_node_frame(result) == wire.Result(
        "task_01HZX4Q7", "completed", b'{"any":"JSON"}', None
    )
    assert wire.read_ask(ask).request_id == "r1"
    assert read_task(submission.encode()).labels == {"gpu": "yes"}


def test_every_metric_is_named() -> None:
    """None is left out, none is invented."""
    metrics = Metrics()
    OctohubMetrics(metrics)
    made = {one.name for one in metrics.described() if one.name.startswith("hubbub_octohub_")}
    assert set(re.findall(r"^\| `(hubbub_octohub_\w+)`", PAGE, re.MULTILINE)) == made


def test_every_endpoint_is_named() -> None:
    """Method and path; and all paths of the original's."""
    named = set(re.findall(r"^\| `(\w+) (/api/octohub/[^`]+)` \|", PAGE, re.MULTILINE))
    routes = [route for route in admin_routes(lambda: None) if isinstance(route, Route)]
    made = {
        (method, re.sub(r"\{(task_id|user)\}", "{id}", route.path))
        for route in routes
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert named == made
    for route in OctohubAdapter().http_routes():
        assert isinstance(route, (Route, WebSocketRoute))
        assert route.path.startswith((PREFIX, "/api/")) or route.path in PAGE
