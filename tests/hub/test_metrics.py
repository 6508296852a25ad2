"""What is counted, under which names, and what it costs in series."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from prometheus_client import Counter
from prometheus_client.parser import text_string_to_metric_families

from hubbub.observe.labels import MAX_ADAPTERS, MAX_LABEL_VALUES, OTHER, Key
from hubbub.observe.metrics import Metrics

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"

Row = tuple[str, tuple[str, ...]]
"""Type and labels."""


def documented() -> dict[str, Row]:
    """Read the tables of the page: name to type and labels."""
    rows: dict[str, Row] = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if not line.startswith("| `"):
            continue
        name, kind, labels = (cell.strip() for cell in line.split("|")[1:4])
        rows[name.strip("`")] = (
            kind,
            tuple(label.strip("` ") for label in labels.split(",") if label),
        )
    return rows


def exported(metrics: Metrics) -> dict[str, str]:
    """Read what Prometheus would: name to type."""
    return {
        f"{family.name}_total" if family.type == "counter" else family.name: family.type
        for family in text_string_to_metric_families(metrics.render().decode())
    }


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_page_and_registry_have_the_same_metrics() -> None:
    """Every metric has its row, with its type and labels, and every row its metric."""
    rows = documented()
    ours = {it.name: (it.kind, it.labels) for it in Metrics().described()}
    assert ours == {name: row for name, row in rows.items() if name.startswith("hubbub_")}


def test_metrics_of_the_process_are_on_the_page() -> None:
    """What the client library adds is described too."""
    rows = documented()
    for name, kind in exported(Metrics()).items():
        assert rows[name][0] == kind


def test_no_series_but_those_described() -> None:
    """The library's own `_created` series are off."""
    metrics = Metrics()
    metrics.publish_seconds.observe(0.001)
    metrics.envelopes_accepted["relay"].inc()
    assert b"_created" not in metrics.render()


def test_children_are_counted_by_label() -> None:
    """One label is a text, two are a tuple; a child is made once."""
    metrics = Metrics(version="1.2.3")
    metrics.envelopes_accepted["relay"].inc()
    metrics.envelopes_accepted["relay"].inc()
    metrics.envelopes_refused["relay", "too_large"].inc()
    assert metrics.envelopes_accepted["relay"] is metrics.envelopes_accepted["relay"]
    assert value(metrics, "hubbub_envelopes_accepted_total", adapter="relay") == 2
    assert value(
        metrics, "hubbub_envelopes_refused_total", adapter="relay", reason="too_large"
    ) == 1  # fmt: skip
    assert value(metrics, "hubbub_build_info", version="1.2.3") == 1


@pytest.mark.parametrize("key", ["relay", ("relay",), ("a", "b", "c")])
def test_key_with_another_number_of_values_is_an_error(key: Key) -> None:
    """A mistake in the code is not counted somewhere."""
    with pytest.raises(ValueError, match="argument"):
        Metrics().deliveries[key]


def test_adapters_beyond_the_limit_are_counted_as_other() -> None:
    """The limit is one for all metrics, and a key beyond it is not kept either."""
    metrics = Metrics()
    for number in range(MAX_ADAPTERS + 2):
        metrics.envelopes_accepted[f"a{number}"].inc()
    metrics.deliveries[f"a{MAX_ADAPTERS - 1}", "dead"].inc()
    metrics.deliveries[f"a{MAX_ADAPTERS}", "dead"].inc()
    last, other = f"a{MAX_ADAPTERS - 1}", OTHER
    assert value(metrics, "hubbub_envelopes_accepted_total", adapter=last) == 1
    assert value(metrics, "hubbub_envelopes_accepted_total", adapter=other) == 2
    assert value(metrics, "hubbub_deliveries_total", adapter=last, outcome="dead") == 1
    assert value(metrics, "hubbub_deliveries_total", adapter=other, outcome="dead") == 1
    assert len(metrics.envelopes_accepted) == MAX_ADAPTERS


def test_other_labels_have_a_limit_too() -> None:
    """A reason with something foreign in it does not make a series each."""
    metrics = Metrics()
    for number in range(MAX_LABEL_VALUES + 1):
        metrics.frames_refused["kenko", f"reason {number}"].inc()
    name = "hubbub_frames_refused_total"
    assert value(metrics, name, adapter="kenko", reason=f"reason {MAX_LABEL_VALUES - 1}") == 1
    assert value(metrics, name, adapter="kenko", reason=f"reason {MAX_LABEL_VALUES}") is None
    assert value(metrics, name, adapter="kenko", reason=OTHER) == 1


def test_filled_gauges_forget_what_is_gone() -> None:
    """A value that is not given any more is 0, and `other` is a sum."""
    metrics = Metrics()
    metrics.endpoints.fill({("kenko", "online"): 3, ("relay", "offline"): 1})
    metrics.endpoints.fill({("kenko", "online"): 2})
    assert value(metrics, "hubbub_endpoints", adapter="kenko", state="online") == 2
    assert value(metrics, "hubbub_endpoints", adapter="relay", state="offline") == 0
    metrics.mailbox_depth.fill({f"a{number}": 1 for number in range(MAX_ADAPTERS + 1)})
    assert value(metrics, "hubbub_mailbox_depth", adapter=OTHER) == 3  # kenko and relay had a place
    metrics.mailbox_depth.fill({"a0": 5})
    assert value(metrics, "hubbub_mailbox_depth", adapter="a0") == 5
    assert value(metrics, "hubbub_mailbox_depth", adapter=OTHER) == 0


async def test_callbacks_run_on_refresh_until_they_are_forgotten(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One that fails is logged and hides nothing of the others."""
    metrics = Metrics()
    forget_failing = metrics.on_scrape(lambda: metrics.routes.set(1 / 0))
    forget = metrics.on_scrape(metrics.routes.inc)
    await metrics.refresh()
    assert value(metrics, "hubbub_routes") == 1
    assert "callback failed" in caplog.text
    forget()
    forget()
    forget_failing()
    await metrics.refresh()
    assert value(metrics, "hubbub_routes") == 1


async def test_a_scrape_waits_for_what_has_to_be_read_but_not_for_ever(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Gauges are those of the moment; one that is too slow keeps its last ones."""
    metrics = Metrics(scrape_s=0.01)

    async def read() -> None:
        await asyncio.sleep(0)
        metrics.routes.set(3)

    async def hang() -> None:
        await asyncio.Event().wait()

    metrics.on_scrape(hang)
    metrics.on_scrape(read)
    await metrics.refresh()
    assert value(metrics, "hubbub_routes") == 3
    assert "callback failed" in caplog.text


def test_same_name_is_the_same_metric() -> None:
    """An adapter that is started twice does not register twice."""
    metrics = Metrics()
    frames = metrics.counter("kenko_frames", "Frames", ("kind",))
    assert metrics.counter("kenko_frames", "Frames", ("kind",)) is frames
    assert metrics.counter("hubbub_kenko_frames_total", "Frames", ("kind",)) is frames
    frames["message"].inc()
    assert value(metrics, "hubbub_kenko_frames_total", kind="message") == 1
    assert metrics.counter("routes_read", "Reads") is metrics.counter("routes_read", "Reads")
    assert metrics.gauge("routes", "Routes") is metrics.routes
    seconds = metrics.histogram("kenko_seconds", "Time", ("kind",), buckets=(0.1, 1.0))
    assert metrics.histogram("kenko_seconds", "Time", ("kind",), buckets=(0.1, 1.0)) is seconds


def test_same_name_for_something_else_is_refused() -> None:
    """Another kind, or other labels, would be lost without a word."""
    metrics = Metrics()
    with pytest.raises(ValueError, match="is a gauge"):
        metrics.histogram("routes", "Routes")
    with pytest.raises(ValueError, match="labels"):
        metrics.counter("envelopes_accepted", "Envelopes", ("source",))
    assert isinstance(metrics.counter("x", "Without labels"), Counter)


def test_two_hubs_in_one_process_count_apart() -> None:
    """Each has a registry of its own."""
    one, two = Metrics(), Metrics()
    one.routes.set(5)
    assert value(two, "hubbub_routes") == 0


LIMITS: dict[str, tuple[float, float]] = {
    "publish_seconds": (0.0001, 2.5),
    "delivery_seconds": (0.0005, 300.0),
    "journal_commit_seconds": (0.0001, 1.0),
    "journal_batch_size": (1.0, 512.0),
}


@pytest.mark.parametrize(("name", "limits"), LIMITS.items(), ids=LIMITS)
def test_buckets_reach_as_far_as_what_is_measured(name: str, limits: tuple[float, float]) -> None:
    """The finest and the coarsest bucket suit what is to be seen."""
    metrics = Metrics()
    metrics.delivery_seconds["relay"].observe(0)
    bounds = [
        float(sample.labels["le"])
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == f"hubbub_{name}_bucket"
    ]
    assert bounds == sorted(bounds)
    assert (bounds[0], bounds[-2]) == limits
