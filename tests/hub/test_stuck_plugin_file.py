"""The file that says which plugin is at work while a hub starts."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from hubbub.stuck_plugin import MAX_BYTES, MAX_ENDED_STARTS, StuckPluginFile


@pytest.fixture
def file(tmp_path: Path) -> StuckPluginFile:
    """A file in a data directory that is not there yet."""
    return StuckPluginFile(tmp_path / "data" / "stuck-plugin.json")


def test_what_is_under_way_stands_there_and_is_taken_out(file: StuckPluginFile) -> None:
    """Readable by the hub's own user alone; gone where nothing is left to say."""
    assert file.read() is None
    file.write("slow", "import")
    assert file.read() == ("slow", "import")
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.path.parent.stat().st_mode) == 0o700
    file.write("other", "tables")
    assert file.read() == ("other", "tables")
    file.clear()
    assert file.read() is None
    assert list(file.path.parent.iterdir()) == []
    file.clear()


def test_one_end_by_chance_is_no_quarantine(file: StuckPluginFile) -> None:
    """`kill -9` in mid-import: tried once more, and forgotten when that start goes well."""
    for _ in range(3):
        file.write("innocent", "import")
        assert file.judge() == {}
        file.write("innocent", "import")
        file.clear()
        file.settle()
    assert not file.path.exists()


def test_starts_in_a_row_that_end_in_one_plugin_are_quarantine(file: StuckPluginFile) -> None:
    """Whichever calls they ended in, and whatever other plugins did in between."""
    for number in range(MAX_ENDED_STARTS):
        assert file.judge() == {}
        file.write("fine", "import")
        file.clear()
        file.write("kills", ("import", "adapters")[number % 2])
    file.write("fine", "import")  # another process: the last one ended inside of that
    assert file.judge() == {}
    file.write("kills", "tables")
    off = file.judge()
    assert list(off) == ["kills"]
    assert "starts in a row ended while its tables was under way" in off["kills"]
    assert file.judge() == off  # until the database knows it
    file.settle()
    assert file.off() == off
    file.hand_over()
    assert file.judge() == {}


def test_a_verdict_is_quarantine_at_once(file: StuckPluginFile) -> None:
    """The watchdog has seen who it was."""
    file.write("holds", "import")
    assert file.condemn("holds", "import did not return for 30 s")
    assert StuckPluginFile(file.path).judge() == {"holds": "import did not return for 30 s"}
    file.hand_over()
    assert file.judge() == file.off() == {}
    assert not file.path.exists()


@pytest.mark.parametrize(
    "text",
    [
        b"", b"{", b"null", b"[]", b'{"at":5}', b'{"at":{"plugin":"x"}}', b"\xff\x00",
        b'{"off":{"x":1}}', b"1" * (MAX_BYTES + 1), b'{"ended":{"x":"y"}}',
    ],
)  # fmt: skip
def test_a_file_that_is_garbled_counts_as_none(file: StuckPluginFile, text: bytes) -> None:
    """A start is not hindered by it, and what is written next is whole."""
    file.path.parent.mkdir()
    file.path.write_bytes(text)
    assert file.read() is None
    assert file.judge() == {}
    file.write("slow", "import")
    assert file.read() == ("slow", "import")


def test_a_link_is_neither_read_nor_written(file: StuckPluginFile, tmp_path: Path) -> None:
    """It is replaced by a file of its own."""
    file.path.parent.mkdir()
    other = tmp_path / "other.json"
    other.write_text('{"off":{"octohub":"planted"}}')
    file.path.symlink_to(other)
    assert file.judge() == {}
    file.write("slow", "import")
    assert not file.path.is_symlink()
    assert other.read_text() == '{"off":{"octohub":"planted"}}'


def test_what_is_no_plain_file_hinders_nothing(file: StuckPluginFile) -> None:
    """A pipe is not waited for, a folder is left alone."""
    file.path.parent.mkdir()
    os.mkfifo(file.path)
    assert file.judge() == {}
    file.path.unlink()
    file.path.mkdir()
    assert file.judge() == {}
    file.write("slow", "import")
    file.settle()
    assert file.path.is_dir()
    assert list(file.path.parent.iterdir()) == [file.path]
