"""What the hub keeps is for its own user alone: from the moment it is made, and from each start."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from hubbub import file_modes
from hubbub.errors import UnauthorizedError
from hubbub.file_modes import (
    MAX_DEPTH,
    create_file,
    is_open_to_all,
    make_folder,
    narrow,
    narrow_tree,
    open_binary,
    too_wide,
    write_text,
)
from hubbub.observe.logbook import LogBook
from hubbub.store import backups
from hubbub.store.database import Database
from hubbub.testing import running_hub
from hubbub.tokens import AdminTokenError, read_admin_file
from hubbub_node.journal import Journal as NodeJournal

OTHER_UID = 12345

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files to other users")


@pytest.fixture(autouse=True, params=[0o022, 0o000], ids=["umask 022", "umask 000"])
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever the umask is."""
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def modes_below(folder: Path) -> dict[str, int]:
    return {
        str(path.relative_to(folder)): mode_of(path)
        for path in sorted(folder.rglob("*"))
        if not path.is_symlink()
    }


def wider(folder: Path) -> dict[str, str]:
    """Return what is not 600, or 700 for folders."""
    return {
        name: oct(mode)
        for name, mode in modes_below(folder).items()
        if mode != (0o700 if (folder / name).is_dir() else 0o600)
    }


# Making


def test_all_folders_that_are_made_are_private(tmp_path: Path) -> None:
    """Not only the last one, as with `Path.mkdir`; one that is there stays as it is."""
    (tmp_path / "there").mkdir(mode=0o755)
    before = mode_of(tmp_path / "there")
    make_folder(tmp_path / "there" / "a" / "b" / "c")
    make_folder(tmp_path / "there" / "a")
    assert mode_of(tmp_path / "there") == before
    assert {mode_of(tmp_path / "there" / name) for name in ("a", "a/b", "a/b/c")} == {0o700}


def test_a_file_in_the_place_of_a_folder_is_an_error(tmp_path: Path) -> None:
    """As `Path.mkdir` has it."""
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError):
        make_folder(tmp_path / "file")


def test_files_are_private_when_they_are_opened(tmp_path: Path) -> None:
    """New ones have 600, those that are there lose the rights of others and nothing else."""
    path = tmp_path / "a"
    with open_binary(path, "xb") as file:
        assert stat.S_IMODE(os.fstat(file.fileno()).st_mode) == 0o600
        file.write(b"1")
    path.chmod(0o644)
    with open_binary(path, "ab") as file:
        file.write(b"2")
    assert (mode_of(path), path.read_bytes()) == (0o640, b"12")
    write_text(path, "new")
    assert (mode_of(path), path.read_text()) == (0o600, "new")
    with pytest.raises(FileExistsError):
        open_binary(path, "xb")


def test_a_link_is_replaced_and_never_written_through(tmp_path: Path) -> None:
    """A link that was laid where a token goes leads it nowhere; what it leads to stays as it is."""
    outside = tmp_path / "outside"
    outside.write_text("theirs")
    link = tmp_path / "admin.token"
    link.symlink_to(outside)
    write_text(link, "secret")
    assert (outside.read_text(), link.is_symlink(), link.read_text()) == ("theirs", False, "secret")
    assert stat.S_IMODE(link.stat().st_mode) == 0o600
    assert sorted(one.name for one in tmp_path.iterdir()) == ["admin.token", "outside"]


def test_a_file_that_is_there_is_not_opened_to_be_made(tmp_path: Path) -> None:
    """Closing a second descriptor of a database would drop the locks this process has on it."""
    path = tmp_path / "hub.db"
    assert create_file(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("CREATE TABLE t (a)")
        holder.execute("BEGIN EXCLUSIVE")
        assert not create_file(path)
        narrow_tree(tmp_path)
        path.chmod(0o644)
        narrow_tree(tmp_path)
        assert mode_of(path) == 0o640
        assert _is_locked_for_others(path)
        holder.execute("COMMIT")


def _is_locked_for_others(path: Path) -> bool:
    """Ask from another process, for the locks of one process are all one."""
    child = os.fork()
    if child == 0:
        try:
            with closing(sqlite3.connect(path, timeout=0)) as other:
                other.execute("SELECT * FROM t")
        except sqlite3.OperationalError:
            os._exit(1)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1


# Narrowing


def test_rights_of_others_are_taken_away_and_those_of_the_group_stay(tmp_path: Path) -> None:
    """755 is 750, 644 is 640; 750 and 640 are left; a secret that others may read is 600."""
    root = tmp_path / "var"
    (root / "logs").mkdir(parents=True)
    given = {"hub.db": 0o644, "a": 0o640, "logs/x.jsonl": 0o666, "admin.token": 0o644, "b": 0o755}
    for name, mode in given.items():
        (root / name).write_text("")
        (root / name).chmod(mode)
    (root / "logs").chmod(0o755)
    (root / "logs" / "admin.token").write_text("")
    (root / "logs" / "admin.token").chmod(0o644)
    root.chmod(0o755)
    done = narrow_tree(root, secrets=frozenset({"admin.token"}))
    assert mode_of(root) == 0o750
    assert modes_below(root) == {
        "a": 0o640, "admin.token": 0o600, "b": 0o750, "hub.db": 0o640,
        "logs": 0o750, "logs/admin.token": 0o640, "logs/x.jsonl": 0o660,
    }  # fmt: skip
    assert (done.changed, done.failures, done.complete) == (7, [], True)
    assert narrow_tree(root, secrets=frozenset({"admin.token"})).changed == 0


def test_links_lead_nowhere(tmp_path: Path) -> None:
    """Neither to a file nor to a folder outside; the root itself may be one."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("")
    (outside / "file").chmod(0o644)
    outside.chmod(0o755)
    root = tmp_path / "var"
    root.mkdir()
    (root / "link").symlink_to(outside)
    (root / "file").symlink_to(outside / "file")
    (root / "loop").symlink_to(root)
    (root / "own").write_text("")
    (root / "own").chmod(0o644)
    by_link = tmp_path / "by_link"
    by_link.symlink_to(root)
    narrow_tree(by_link)
    assert (mode_of(outside), mode_of(outside / "file")) == (0o755, 0o644)
    assert mode_of(root / "own") == 0o640


@as_root
def test_what_belongs_to_another_user_is_not_touched(tmp_path: Path) -> None:
    """Nor is a folder of theirs looked into; but what is ours in a root of theirs is narrowed."""
    root = tmp_path / "var"
    (root / "theirs").mkdir(parents=True)
    for path in (root / "file", root / "theirs" / "ours", root / "ours"):
        path.write_text("")
        path.chmod(0o644)
    (root / "theirs").chmod(0o755)
    root.chmod(0o755)
    for path in (root, root / "theirs", root / "file"):
        os.chown(path, OTHER_UID, OTHER_UID)
    narrow_tree(root)
    assert (mode_of(root), mode_of(root / "theirs"), mode_of(root / "file")) == (
        0o755, 0o755, 0o644,
    )  # fmt: skip
    assert mode_of(root / "theirs" / "ours") == 0o644
    assert mode_of(root / "ours") == 0o640


def test_a_walk_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At so many entries, and so deep; what comes first is done, and it says that more is left."""
    root = tmp_path / "var"
    root.mkdir()
    for number in range(5):
        (root / str(number)).write_text("")
        (root / str(number)).chmod(0o644)
    monkeypatch.setattr(file_modes, "MAX_ENTRIES", 5)
    assert narrow_tree(root).complete
    for path in root.iterdir():
        path.chmod(0o644)
    monkeypatch.setattr(file_modes, "MAX_ENTRIES", 4)
    done = narrow_tree(root)
    assert not done.complete
    assert sorted(modes_below(root).values()) == [0o640] * 4 + [0o644]
    monkeypatch.undo()
    deep = tmp_path / "deep"
    (deep / "/".join("d" * (MAX_DEPTH - 1))).mkdir(parents=True)
    assert narrow_tree(deep).complete
    (deep / "/".join("d" * MAX_DEPTH)).mkdir()
    assert not narrow_tree(deep).complete


def test_odd_things_in_the_folder_do_no_harm(tmp_path: Path) -> None:
    """A pipe is not opened, which would wait for ever; no folder is no error."""
    os.mkfifo(tmp_path / "pipe", 0o666)
    assert narrow_tree(tmp_path).failures == []
    assert narrow_tree(tmp_path / "none").changed == 0
    assert narrow(tmp_path / "none") is None
    (tmp_path / "file").write_text("")
    assert len(narrow_tree(tmp_path / "file").failures) == 1


def test_what_is_too_wide_is_named_without_being_changed(tmp_path: Path) -> None:
    """With its mode, as `hubbub doctor` shows it."""
    root = tmp_path / "var"
    root.mkdir()
    root.chmod(0o750)
    (root / "a").write_text("")
    (root / "a").chmod(0o604)
    assert [(found.path, found.mode) for found in too_wide(root)] == [(root / "a", 0o604)]
    assert mode_of(root / "a") == 0o604


# What the hub makes


async def test_everything_a_hub_makes_is_private(tmp_path: Path) -> None:
    """Its folder, the database and all beside it, the token, logs and backups; while it runs."""
    folder = tmp_path / "new" / "var"
    make_folder(folder)
    url = f"sqlite:///{folder / 'hub.db'}"
    async with running_hub(folder, store_url=url) as core:
        (folder / "hub.toml").chmod(0o600)
        made = backups.back_up_into(core.config.store_url, core.data_dir / "backups")
        assert (folder / "hub.db-wal").exists()
        assert (folder / "hub.db.owner").exists()
        assert made.file.exists()
        assert wider(folder) == {}
    assert mode_of(folder) == 0o700


async def test_a_start_narrows_what_an_older_version_left(tmp_path: Path) -> None:
    """The same files, made as before: 755 and 644; a database elsewhere too, and not its folder."""
    folder, elsewhere = tmp_path / "var", tmp_path / "elsewhere"
    elsewhere.mkdir()
    elsewhere.chmod(0o755)
    url = f"sqlite:///{elsewhere / 'other.db'}"
    async with running_hub(folder, store_url=url):
        pass
    (folder / "kenko").mkdir()
    (folder / "kenko" / "old.zip").write_text("")
    folder.chmod(0o755)
    for path in [*folder.rglob("*"), *elsewhere.iterdir()]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    token = (folder / "admin.token").read_text()
    async with running_hub(folder, store_url=url) as core:
        assert core.tokens.authenticate(token.strip()).scopes == {"admin"}
    assert mode_of(folder) == 0o750
    assert mode_of(folder / "kenko") == 0o750
    assert mode_of(folder / "kenko" / "old.zip") == 0o640
    assert mode_of(folder / "admin.token") == 0o600
    assert mode_of(elsewhere) == 0o755
    assert mode_of(elsewhere / "other.db") == 0o640


def test_a_database_is_private_before_anything_is_in_it(tmp_path: Path) -> None:
    """And so is what SQLite puts beside it, for the journal and for whoever reads."""
    database = Database(f"sqlite:///{tmp_path / 'a' / 'hub.db'}")
    database.open()
    with database.writer() as connection:
        connection.exec_driver_sql("CREATE TABLE t (a)")
        assert wider(tmp_path) == {}
    database.close()


def test_log_files_are_private_also_when_they_are_turned_over(tmp_path: Path) -> None:
    """As are the folders that are made for them."""
    import logging

    book = LogBook()
    book.write_to(tmp_path / "var" / "logs" / "hub.jsonl", files=3, max_bytes=100)
    for _ in range(10):
        book.emit(logging.makeLogRecord({"msg": "x" * 80, "levelno": logging.INFO}))
    book.stop_writing()
    assert len(list((tmp_path / "var" / "logs").iterdir())) == 3
    assert wider(tmp_path) == {}


def test_a_backup_is_private_wherever_it_goes(tmp_path: Path) -> None:
    """As is a database that was put back, and what another user laid in the way is not used."""
    url = f"sqlite:///{tmp_path / 'var' / 'hub.db'}"
    backups.upgrade(url)
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    victim = tmp_path / "victim"
    victim.write_text("as it was")
    (shared / "copy.db.part").symlink_to(victim)
    backups.back_up(url, shared / "copy.db")
    assert victim.read_text() == "as it was"
    assert mode_of(shared / "copy.db") == 0o600
    (shared / "copy.db").chmod(0o644)
    backups.restore(url, shared / "copy.db")
    assert mode_of(tmp_path / "var" / "hub.db") == 0o600


def test_the_journal_of_a_node_is_private(tmp_path: Path) -> None:
    """It has results of tasks; one that was made wider is narrowed."""
    path = tmp_path / "node.db"
    with closing(NodeJournal(path)) as journal:
        journal.keep("t", "{}")
        assert wider(tmp_path) == {}
    path.chmod(0o644)
    with closing(NodeJournal(path)) as journal:
        journal.keep("t", "{}")
        assert mode_of(path) == 0o640


# A folder of somebody else


@as_root
@pytest.mark.parametrize(("mode", "kept"), [(0o755, False), (0o1777, False), (0o750, True)])
async def test_no_admin_token_is_written_where_everybody_may_enter(
    tmp_path: Path, mode: int, kept: bool
) -> None:
    """In a folder of another user; the hub runs, and says what to do."""
    folder = tmp_path / "var"
    folder.mkdir()
    os.chown(folder, OTHER_UID, OTHER_UID)
    folder.chmod(mode)
    async with running_hub(folder) as core:
        assert (folder / "admin.token").exists() is kept
        assert (core.new_admin_token is not None) is kept
        if not kept:
            assert core.no_admin is not None
            assert core.no_admin.code == "no_admin_token"
            assert "HUBBUB_ADMIN_TOKEN" in core.no_admin.message
        assert core.state == "ready"
    assert mode_of(folder) == mode


@as_root
async def test_a_token_that_another_user_laid_there_lets_nobody_in(tmp_path: Path) -> None:
    """Whoever can write into the folder would be the administrator."""
    folder = tmp_path / "var"
    folder.mkdir()
    os.chown(folder, OTHER_UID, OTHER_UID)
    folder.chmod(0o1777)
    planted = folder / "admin.token"
    planted.write_text("planted")
    planted.chmod(0o644)
    os.chown(planted, OTHER_UID, OTHER_UID)
    async with running_hub(folder) as core:
        assert core.no_admin is not None
        with pytest.raises(UnauthorizedError):
            core.tokens.authenticate("planted")
    planted.unlink()
    os.mkfifo(planted, 0o600)
    with pytest.raises(AdminTokenError):
        read_admin_file(planted)


def test_only_who_may_enter_counts(tmp_path: Path) -> None:
    """A folder that can be listed and not entered shows names alone."""
    folder = tmp_path / "var"
    folder.mkdir()
    for mode, wide in ((0o754, False), (0o752, False), (0o751, True), (0o700, False)):
        folder.chmod(mode)
        assert is_open_to_all(folder) is wide
    assert not is_open_to_all(tmp_path / "none")
