"""Real folders, links and databases: nothing outside a root, nothing private, by no way."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hubbub.errors import ConflictError, HubError, NotFoundError, TooLargeError
from hubbub_files.errors import OutsideError, PrivateError
from hubbub_files.folders import Folders
from hubbub_files.places import MAX_NAME, MAX_PATH, Roots, parts_of
from hubbub_files.privacy import Privacy

LIMIT = 1000


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder beside the root, with something that must not be seen."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "treasure.txt").write_text("treasure")
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with a file, a folder, a database and a token."""
    folder = tmp_path / "data"
    (folder / "notes").mkdir(parents=True)
    (folder / "notes" / "a.txt").write_text("hello")
    (folder / "admin.token").write_text("the token")
    with closing(sqlite3.connect(folder / "hub.db")) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE t (a)")
        database.commit()
    return folder


@pytest.fixture
def folders(root: Path) -> Folders:
    """The root `data`, with a hub's private files in it."""
    files = [root / "admin.token", root / "hub.db", root / "hub.toml"]
    privacy = Privacy(files, ["*.csv"])
    return Folders(Roots({"data": root, "logs": root / "logs"}), privacy, max_bytes=LIMIT)


TRAVERSALS = [
    "..",
    "../outside/treasure.txt",
    "data/..",
    "data/../outside/treasure.txt",
    "data/notes/../../outside/treasure.txt",
    "data/notes/../../../../../../../../etc/passwd",
    "data/./../outside/treasure.txt",
    "data/.",
    "data//outside",
    "/etc/passwd",
    "//etc/passwd",
    "data//etc/passwd",
    "data\\..\\outside\\treasure.txt",
    "data/..\\outside",
    "C:\\Windows\\win.ini",
    "data/\0/../../outside/treasure.txt",
    "data/notes/a.txt\0.png",
    "data/..%2foutside/..",
    "",
    "/",
    "data/notes/a.txt/..",
    "data/..\n/x",
    "data/\ud800",
    "data/../data/notes/a.txt",
]


@pytest.mark.parametrize("path", TRAVERSALS)
def test_no_path_leads_out(folders: Folders, outside: Path, path: str) -> None:
    """Neither for reading nor for anything else; and a path is not made better on the way."""
    before = sorted(outside.iterdir())
    for act in (folders.listed, folders.read, folders.make, folders.remove):
        with pytest.raises(OutsideError):
            act(path)
    with pytest.raises(OutsideError):
        folders.write(path, b"x")
    for way in ((path, "data/x"), ("data/notes/a.txt", path)):
        with pytest.raises(OutsideError):
            folders.move(*way)
    assert sorted(outside.iterdir()) == before


@pytest.mark.parametrize(
    "path", ["data/%2e%2e/outside/treasure.txt", "data/~root/x", "data/file:/etc", "data/．．/x"]
)
def test_what_only_looks_like_a_way_out_is_a_name(folders: Folders, path: str) -> None:
    """It was decoded once already; here it is a name that nothing has."""
    with pytest.raises(NotFoundError):
        folders.read(path)


@given(st.text())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
def test_any_path_stays_inside_or_is_refused(folders: Folders, path: str) -> None:
    """Whatever it is."""
    try:
        place = folders.roots.find(f"data/{path}")
    except HubError:
        return
    assert place.path.is_relative_to(place.root)


@given(st.lists(st.sampled_from(["a", "..", ".", "", "\\", "data"]), min_size=1, max_size=6))
def test_parts_have_no_steps_back(names: list[str]) -> None:
    """A path either has only plain names, or is refused."""
    path = "/".join(names)
    try:
        parts = parts_of(path)
    except OutsideError:
        return
    assert all(part not in ("", ".", "..") and "\\" not in part for part in parts)


def test_lengths_hold_at_their_edges(folders: Folders) -> None:
    """The longest name and path are looked for; one more is refused."""
    longest = "n" * MAX_NAME
    with pytest.raises(NotFoundError):
        folders.read(f"data/{longest}")
    with pytest.raises(OutsideError):
        folders.read(f"data/{longest}n")
    assert len(parts_of("a/" * (MAX_PATH // 2 - 1) + "ab")) == MAX_PATH // 2
    with pytest.raises(OutsideError):
        parts_of("a/" * (MAX_PATH // 2) + "a")


# Links


def test_links_out_of_the_root_are_not_followed(
    folders: Folders, root: Path, outside: Path
) -> None:
    """To a file, to a folder, over another link, relative and absolute; a loop neither."""
    (root / "file").symlink_to(outside / "treasure.txt")
    (root / "folder").symlink_to(outside)
    (root / "relative").symlink_to("../outside")
    (root / "first").symlink_to("folder")
    (root / "loop").symlink_to("loop")
    for path in ("file", "folder/treasure.txt", "relative/treasure.txt", "first/treasure.txt"):
        with pytest.raises(OutsideError):
            folders.read(f"data/{path}")
        with pytest.raises(OutsideError):
            folders.write(f"data/{path}", b"changed")
    for path in ("folder", "relative", "first"):
        with pytest.raises(OutsideError):
            folders.listed(f"data/{path}")
        with pytest.raises(OutsideError):
            folders.make(f"data/{path}/new")
        with pytest.raises(OutsideError):
            folders.move("data/notes/a.txt", f"data/{path}/a.txt")
    with pytest.raises(OutsideError):
        folders.remove("data/folder/treasure.txt")
    with pytest.raises(HubError):
        folders.read("data/loop")
    assert (outside / "treasure.txt").read_text() == "treasure"
    assert sorted(path.name for path in outside.iterdir()) == ["treasure.txt"]


def test_links_inside_the_root_are_followed_and_removed_themselves(
    folders: Folders, root: Path
) -> None:
    """Reading goes through; removing takes the link, not what it leads to."""
    (root / "short").symlink_to("notes/a.txt")
    assert folders.read("data/short") == b"hello"
    (entry,) = [entry for entry in folders.listed("data") if entry.name == "short"]
    assert entry.kind == "link"
    folders.remove("data/short")
    assert (root / "notes" / "a.txt").read_text() == "hello"
    (root / "away").symlink_to("/etc")
    folders.remove("data/away")
    assert Path("/etc").is_dir()


def test_a_link_put_in_between_is_not_followed(folders: Folders, root: Path, outside: Path) -> None:
    """While a folder changes into a link and back, what is read is the file or an error."""
    (root / "notes" / "treasure.txt").write_text("mine")
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            (root / "notes").rename(root / "aside")
            (root / "notes").symlink_to(outside)
            (root / "notes").unlink()
            (root / "aside").rename(root / "notes")

    swapper = threading.Thread(target=swap)
    swapper.start()
    seen: set[bytes] = set()
    try:
        for _ in range(3000):
            try:
                seen.add(folders.read("data/notes/treasure.txt"))
            except HubError:
                seen.add(b"refused")
    finally:
        stop.set()
        swapper.join()
    assert b"treasure" not in seen
    assert folders.read("data/notes/treasure.txt") == b"mine"  # whichever it saw meanwhile


# What is private


PRIVATE = [
    "admin.token",
    "hub.db",
    "hub.db-wal",
    "hub.db-shm",
    "hub.db.before-20260101T000000Z",
    "hub.db.part",
    "hub.toml",
    "ADMIN.TOKEN",
    "other.db",
    "server.pem",
    "tls.KEY",
    ".env",
    ".env.local",
    "secrets",
    "secrets/relay",
    "Secrets/relay",
    "id_ed25519",
    ".git/config",
    "people.csv",
]


@pytest.mark.parametrize("name", PRIVATE)
def test_private_files_are_not_there(folders: Folders, root: Path, name: str) -> None:
    """They are not listed, read, written, moved or removed."""
    path = root / name
    path.parent.mkdir(exist_ok=True)
    if not path.exists():
        path.write_text("private")
    before = path.read_bytes()
    shown = f"data/{name}"
    assert path.name not in [entry.name for entry in folders.listed("data")]
    with pytest.raises(PrivateError):
        folders.read(shown)
    with pytest.raises(PrivateError):
        folders.write(shown, b"changed")
    with pytest.raises(PrivateError):
        folders.move(shown, "data/notes/shown.txt")
    with pytest.raises(PrivateError):
        folders.remove(shown)
    with pytest.raises(PrivateError):
        folders.move("data/notes/a.txt", shown)
    assert path.read_bytes() == before


def test_private_files_have_no_other_name(folders: Folders, root: Path) -> None:
    """Neither a link nor a hard link nor a copy of the database shows them."""
    (root / "soft").symlink_to("admin.token")
    os.link(root / "admin.token", root / "hard")
    os.link(root / "hub.db", root / "hard2")
    (root / "copy").write_bytes((root / "hub.db").read_bytes())
    for name in ("soft", "hard", "hard2", "copy"):
        with pytest.raises(PrivateError):
            folders.read(f"data/{name}")
    with pytest.raises(PrivateError):
        folders.write("data/new", (root / "hub.db").read_bytes()[:LIMIT])
    names = {entry.name for entry in folders.listed("data")}
    assert names.isdisjoint({"hard", "hard2", "admin.token", "hub.db"})
    with pytest.raises(PrivateError):
        folders.read("data/copy", offset=100, length=10)


def test_a_folder_that_holds_something_private_is_not_moved(folders: Folders, root: Path) -> None:
    """Nor one that holds a root."""
    (root / "deep" / "er").mkdir(parents=True)
    (root / "deep" / "er" / "x.pem").write_text("key")
    with pytest.raises(PrivateError):
        folders.move("data/deep", "data/shallow")
    (root / "logs").mkdir()
    for act in (lambda: folders.move("data/logs", "data/l"), lambda: folders.remove("data/logs")):
        with pytest.raises(ConflictError):
            act()
    for path in ("data", "logs"):
        with pytest.raises(ConflictError):
            folders.remove(path)


# What may be done


def test_files_are_written_whole(folders: Folders, root: Path) -> None:
    """New or again, with the rights the file has; nothing is left beside it."""
    entry, is_new = folders.write("data/notes/b.txt", b"one")
    assert (entry.path, entry.size, is_new) == ("data/notes/b.txt", 3, True)
    (root / "notes" / "b.txt").chmod(0o640)
    _, is_new = folders.write("data/notes/b.txt", b"two")
    assert not is_new
    assert (root / "notes" / "b.txt").read_bytes() == b"two"
    assert (root / "notes" / "b.txt").stat().st_mode & 0o777 == 0o640
    assert sorted(path.name for path in (root / "notes").iterdir()) == ["a.txt", "b.txt"]


def test_sizes_hold_at_their_edges(folders: Folders, root: Path) -> None:
    """The largest file is read and written; a byte more is only read in parts."""
    folders.write("data/full", b"x" * LIMIT)
    assert len(folders.read("data/full")) == LIMIT
    with pytest.raises(TooLargeError):
        folders.write("data/full", b"x" * (LIMIT + 1))
    (root / "over").write_bytes(b"x" * LIMIT + b"y")
    with pytest.raises(TooLargeError):
        folders.read("data/over")
    assert folders.read("data/over", offset=LIMIT) == b"y"
    assert folders.read("data/over", offset=LIMIT - 1, length=2) == b"xy"
    with pytest.raises(TooLargeError):
        folders.read("data/over", offset=0, length=LIMIT + 1)


def test_only_files_are_read(folders: Folders, root: Path) -> None:
    """A pipe does not hold anybody up; a folder is no file."""
    os.mkfifo(root / "pipe")
    with pytest.raises(ConflictError):
        folders.read("data/pipe")
    with pytest.raises(ConflictError):
        folders.write("data/pipe", b"x")
    with pytest.raises(HubError):
        folders.read("data/notes")


def test_folders_are_made_moved_and_removed(folders: Folders, root: Path) -> None:
    """Nothing is replaced on the way, and only an empty folder goes."""
    folders.make("data/new")
    with pytest.raises(ConflictError):
        folders.make("data/new")
    with pytest.raises(NotFoundError):
        folders.make("data/no/where")
    folders.move("data/notes", "data/new/notes")
    assert folders.read("data/new/notes/a.txt") == b"hello"
    folders.write("data/b.txt", b"b")
    with pytest.raises(ConflictError):
        folders.move("data/b.txt", "data/new/notes/a.txt")
    with pytest.raises(ConflictError):
        folders.move("data/new", "data/new/inside")
    with pytest.raises(ConflictError):
        folders.remove("data/new")
    folders.remove("data/new/notes/a.txt")
    folders.remove("data/new/notes")
    folders.remove("data/new")
    assert not (root / "new").exists()
    with pytest.raises(NotFoundError):
        folders.remove("data/new")


def test_a_root_that_is_not_there_is_empty_and_made_when_written(
    folders: Folders, root: Path
) -> None:
    """A hub without log files has no folder for them."""
    assert folders.listed("logs") == []
    folders.write("logs/note.txt", b"x")
    assert (root / "logs" / "note.txt").exists()
    with pytest.raises(NotFoundError):
        folders.listed("plugins")


def test_what_is_made_is_private(folders: Folders, root: Path) -> None:
    """A root that was missing, files and folders; a file that was there keeps its mode."""
    folders.write("logs/new.txt", b"x")
    folders.make("logs/inner")
    (root / "notes" / "a.txt").chmod(0o640)
    folders.write("data/notes/a.txt", b"other")
    for path in (root / "logs", root / "logs" / "inner"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert stat.S_IMODE((root / "logs" / "new.txt").stat().st_mode) == 0o600
    assert stat.S_IMODE((root / "notes" / "a.txt").stat().st_mode) == 0o640
