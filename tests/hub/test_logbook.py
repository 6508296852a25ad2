"""Log lines are remembered, written to files that are turned over, and told to who watches."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from hubbub import Envelope, Route
from hubbub.config import load_config
from hubbub.core import Core
from hubbub.errors import ConfigError
from hubbub.logtelling import MAX_TOLD, SUBJECT, view_of
from hubbub.observe.logbook import MAX_LINE, LogBook
from hubbub.observe.logs import configure_logs
from hubbub.testing import FakeClock, RecordingEndpoint, running_hub


@pytest.fixture
def book() -> Iterator[LogBook]:
    """A book that all logs go to."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    before = structlog.get_config()
    book = LogBook(size=10)
    configure_logs("info", "json", book)
    yield book
    book.stop_writing()
    book.undo_choices()
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.configure(**before)


def events(book: LogBook) -> list[object]:
    return [view_of(line)["event"] for line in book.newest_first()]


def test_the_last_lines_are_remembered(book: LogBook) -> None:
    """As many as it holds, with what they say, those of libraries too."""
    for number in range(11):
        structlog.get_logger("hubbub.test").info(f"event {number}", number=number)
    logging.getLogger("a.library").warning("from %s", "outside")
    assert len(events(book)) == 10
    assert events(book)[:2] == ["from outside", "event 10"]
    newest, before, *_ = [view_of(line) for line in book.newest_first()]
    assert (newest["level"], newest["logger"], newest["number"]) == ("warning", "a.library", 12)
    assert before["detail"] == {"number": 10}
    assert [line.number for line in book.newest_first(before=11)] == list(range(10, 2, -1))
    assert [line.number for line in book.after(10)] == [11, 12]


def test_a_long_line_is_cut_in_memory(book: LogBook) -> None:
    """And shown as far as it goes."""
    structlog.get_logger("hubbub.test").info("x" * MAX_LINE)
    (line,) = book.newest_first()
    assert len(line.text) == MAX_LINE
    assert view_of(line)["detail"] == {"cut": True}


def test_files_are_turned_over(book: LogBook, tmp_path: Path) -> None:
    """So many of that size are kept, each with whole lines of JSON."""
    path = tmp_path / "logs" / "hub.jsonl"
    book.write_to(path, files=3, max_bytes=4096)
    for number in range(200):
        structlog.get_logger("hubbub.test").info("an event", number=number)
    book.stop_writing()
    files = sorted(path.parent.iterdir())
    assert [file.name for file in files] == ["hub.jsonl", "hub.jsonl.1", "hub.jsonl.2"]
    assert all(file.stat().st_size <= 4096 for file in files)
    lines = [json.loads(line) for file in reversed(files) for line in file.read_text().splitlines()]
    assert [line["number"] for line in lines] == list(range(200 - len(lines), 200))


def test_one_file_is_too_few(tmp_path: Path) -> None:
    """None, or at least two."""
    path = tmp_path / "hub.toml"
    for files in (0, 2):
        path.write_text(f"[log]\nfiles = {files}\n")
        load_config(path, environ={})
    path.write_text("[log]\nfiles = 1\n")
    with pytest.raises(ConfigError, match=r"hub\.toml:2.*at least 2"):
        load_config(path, environ={})


def test_levels_are_chosen_for_a_logger_and_below(book: LogBook) -> None:
    """Others stay as they are."""
    book.choose("debug", "hubbub.noisy")
    structlog.get_logger("hubbub.noisy.part").debug("heard")
    structlog.get_logger("hubbub.other").debug("not heard")
    assert events(book) == ["heard"]
    assert book.levels == {"root": "info", "hubbub.noisy": "debug"}
    book.choose("error")
    structlog.get_logger("hubbub.other").warning("not heard")
    assert events(book) == ["heard"]


def said(envelope: Envelope) -> Any:
    return envelope.json()


def watching(core: Core) -> RecordingEndpoint:
    watcher = RecordingEndpoint("plugin.watcher", concurrency=1000)
    core.attach(watcher)
    core.table.put(Route(name="watch", match=SUBJECT, to=("plugin.watcher",)))
    return watcher


async def test_lines_are_told_while_somebody_wants_them(
    book: LogBook, tmp_path: Path, clock: FakeClock
) -> None:
    """A moment later, in order; and none before anybody wanted them."""
    log = structlog.get_logger("hubbub.test")
    async with running_hub(tmp_path / "hub", clock=clock, book=book) as core:
        log.info("unheard")
        await clock.advance(1)
        watcher = watching(core)
        log.info("first", trace_id="0af7651916cd43dd8448eb211c80319c")
        log.warning("second")
        await clock.advance(1)
        told = [said(envelope) for envelope in await watcher.wait_for(2)]
        assert [one["event"] for one in told] == ["first", "second"]


async def test_telling_a_line_does_not_make_the_next(
    book: LogBook, tmp_path: Path, clock: FakeClock
) -> None:
    """What is logged because of a line that was told stays in the book."""
    log = structlog.get_logger("hubbub.test")
    async with running_hub(tmp_path / "hub", clock=clock, book=book) as core:
        watcher = watching(core)
        core.router.before_route = lambda envelope: (log.info("routed"), envelope)[1]
        log.info("cause")
        for _ in range(5):
            await clock.advance(1)
        assert [said(one)["event"] for one in watcher.taken] == ["cause"]
        assert "routed" in events(book)


async def test_a_flood_is_told_in_part(tmp_path: Path, clock: FakeClock, book: LogBook) -> None:
    """The newest lines, and how many were left out."""
    large = LogBook()
    configure_logs("info", "json", large)
    log = structlog.get_logger("hubbub.test")
    async with running_hub(tmp_path / "hub", clock=clock, book=large) as core:
        watcher = watching(core)
        await clock.advance(1)
        for number in range(MAX_TOLD + 5):
            log.info("event", number=number)
        await clock.advance(1)
        told = await watcher.wait_for(MAX_TOLD)
        assert len(told) == MAX_TOLD
        first = said(told[0])
        assert (first["left_out"], first["detail"]["number"]) == (5, 5)
