"""`hubbub doctor`: what is wrong on this machine, and how to mend it."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

from hubbub.cli.errors import FAILED
from hubbub.cli.options import AsJson, ConfigFile, Overrides
from hubbub.cli.output import clean, print_json, print_line, quiet_logs

if TYPE_CHECKING:
    from hubbub.config import Config

__all__ = ["Finding", "doctor", "examine"]

OLDEST_PYTHON: Final = (3, 11)
LEAST_FREE_BYTES: Final = 512 * 1024**2
"""Free space below which a disk counts as full."""

EARLIEST_S: Final = 1_735_689_600
"""2025-01-01; a clock before that was never set."""

MAX_LISTED: Final = 3
"""Files that one finding names."""

ANSWER_S: Final = 2.0
"""How long what listens on the port has to say that it is this hub."""

STEP_S: Final = 0.5
"""How far the wall clock may move against the steady one while it is looked at."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: `mend` says what to do when it is not ok."""

    check: str
    ok: bool
    says: str
    mend: str = ""


def doctor(config: ConfigFile = None, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Look for what would keep a hub from running well here. Exit 0 when all is well, else 1."""
    findings = list(examine(config, overrides or []))
    ok = all(finding.ok for finding in findings)
    if as_json:
        print_json({"ok": ok, "checks": [asdict(finding) for finding in findings]})
    else:
        for finding in findings:
            mend = f"; {clean(finding.mend)}" if finding.mend else ""
            verdict = "ok     " if finding.ok else "problem"
            print_line(f"{verdict}  {finding.check}: {clean(finding.says)}{mend}")
    raise typer.Exit(0 if ok else FAILED)


def examine(config: ConfigFile, overrides: list[str]) -> Iterator[Finding]:
    """Yield what was looked at; what needs the settings is left out where there are none."""
    from hubbub.config import load_config
    from hubbub.errors import ConfigError

    quiet_logs()
    yield _python()
    yield _clock()
    try:
        settings = load_config(config, overrides=overrides)
    except ConfigError as error:
        yield Finding("config", False, "; ".join(error.problems), "mend these lines")
        return
    yield from _plugins(config, overrides)
    for look in (_port, _proxy, _data_dir, _disk, _token, _database):
        yield look(settings)


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    ok = sys.version_info >= OLDEST_PYTHON
    return Finding(
        "python", ok, f"{version} at {sys.executable}", "" if ok else "use 3.11 or newer"
    )


def _clock() -> Finding:
    wall_s, steady_s = time.time(), time.monotonic()
    time.sleep(0.05)
    drift_s = abs((time.time() - wall_s) - (time.monotonic() - steady_s))
    now = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(wall_s))
    if wall_s < EARLIEST_S:
        return Finding("clock", False, f"it says {now}", "set it; time synchronisation may be off")
    if drift_s > STEP_S:
        return Finding("clock", False, f"it moved {drift_s:.1f} s by itself", "look at its service")
    return Finding("clock", True, now)


def _plugins(config: ConfigFile, overrides: list[str]) -> Iterator[Finding]:
    from hubbub.cli.check import examine as check
    from hubbub.cli.check import number_of
    from hubbub.cli.plugins import load_plugins

    failed = [plugin for plugin in load_plugins() if plugin.state == "failed"]
    found = check(config, overrides)
    about = [f"plugin {plugin.name!r}: " for plugin in failed]
    problems = [line for line in found.problems if not line.startswith(tuple(about) or ("\0",))]
    yield Finding(
        "config",
        not problems,
        "; ".join(problems) or f"{found.file}, {number_of(found.routes, 'route')}",
        "mend these lines; `hubbub check` says the same" if problems else "",
    )
    yield Finding(
        "plugins",
        not failed,
        "; ".join(f"{plugin.name}: {plugin.reason}" for plugin in failed)
        or f"{len(found.plugins)} load",
        "mend or uninstall them; `hubbub run --safe` starts without" if failed else "",
    )


def _port(config: Config) -> Finding:
    host, port = config.hub.host, config.hub.port
    where = f"{host}:{port}"
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((host, port))
        except OSError as error:
            running = _our_hub(config)
            if running is not None:
                return Finding("port", True, f"{where}: {running} of this data directory runs")
            why = error.strerror or str(error)
            mend = "end what listens there (another hub?), or set hub.host and hub.port"
            return Finding("port", False, f"{where}: {why}", mend)
    return Finding("port", True, f"{where} is free")


def _proxy(config: Config) -> Finding:
    """Say what a proxy in front of the hub wants to be set; it cannot be seen from here."""
    from hubbub.config import is_loopback_host

    hub = config.hub
    if hub.public_url:
        return Finding("proxy", True, f"clients reach the hub at {hub.public_url}")
    if hub.trusted_proxies:
        return Finding(
            "proxy",
            False,
            f"{', '.join(hub.trusted_proxies)} may forward requests, and hub.public_url is not set",
            "set it to where clients reach the hub",
        )
    if not is_loopback_host(hub.host):
        return Finding(
            "proxy", True, "hub.public_url is not set; nothing is open to local requests"
        )
    return Finding(
        "proxy",
        True,
        "hub.public_url is not set, so requests of this machine are local; set it if a proxy "
        "stands in front: one that adds no headers (TCP) cannot be told from a local program",
    )


def _our_hub(config: Config) -> str | None:
    """Name the hub that listens where this one would, if it knows the admin token from here."""
    from hubbub.cli.client import HubClient
    from hubbub.errors import HubError

    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(config.hub.host, config.hub.host)  # noqa: S104  # compared only
    address = f"[{host}]" if ":" in host else host
    try:
        token = os.environ.get("HUBBUB_ADMIN_TOKEN") or (
            (config.hub.data_dir / "admin.token").read_text(encoding="utf-8").strip()
        )
        url = f"http://{address}:{config.hub.port}"
        with HubClient(url, token, timeout_s=ANSWER_S) as hub:
            return f"the hub {hub.get('/api/v1/stats')['hub']!r}"
    except (HubError, KeyError, OSError, UnicodeError):
        return None


def _data_dir(config: Config) -> Finding:
    folder = config.hub.data_dir
    there = _nearest(folder)
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        why = error.strerror or str(error)
        return Finding(
            "data_dir", False, f"{there}: {why}", "give the hub's user the right to write there"
        )
    return _rights(config) or Finding("data_dir", True, f"{folder} can be written")


def _disk(config: Config) -> Finding:
    free = shutil.disk_usage(_nearest(config.hub.data_dir)).free
    ok = free >= LEAST_FREE_BYTES
    says = f"{free / 1024**3:.1f} GiB free"
    return Finding("disk", ok, says, "" if ok else "make room, or lower store.retention")


def _token(config: Config) -> Finding:
    path = config.hub.data_dir / "admin.token"
    try:
        mode = path.stat().st_mode & 0o777
    except FileNotFoundError:
        return Finding("token", True, "none yet; the first start makes one")
    except OSError as error:
        return Finding("token", False, f"{path}: {error.strerror}", "run this as the hub's user")
    ok = mode & 0o077 == 0
    return Finding("token", ok, f"{path} has mode {mode:o}", "" if ok else f"chmod 600 {path}")


def _rights(config: Config) -> Finding | None:
    """Say what other users of this machine may use, of what is the hub's alone."""
    from hubbub.file_modes import is_open_to_all, owner_of

    folder = config.hub.data_dir
    wide = list(islice(_too_wide(config), MAX_LISTED + 1))
    if wide:
        more = ", and more" if len(wide) > MAX_LISTED else ""
        says = ", ".join(f"{path} ({mode:o})" for path, mode in wide[:MAX_LISTED])
        mend = f"the next start takes them away; or chmod -R o-rwx {folder}"
        if not any(path.is_relative_to(folder) for path, _ in wide):
            mend = f"chmod o-rwx {wide[0][0]}"
        return Finding("data_dir", False, f"others may use {says}{more}", mend)
    if is_open_to_all(folder) and not _admin_from_elsewhere():
        return Finding(
            "data_dir",
            False,
            f"{folder} belongs to user {owner_of(folder)}, and every user may enter it",
            "no admin token is written there: set HUBBUB_ADMIN_TOKEN, or chmod o-rwx it as its "
            "owner",
        )
    return None


def _too_wide(config: Config) -> Iterator[tuple[Path, int]]:
    """Yield files and folders that others have rights to, and their modes."""
    from sqlalchemy import make_url

    from hubbub.file_modes import OTHERS, too_wide

    with suppress(OSError):  # not there yet; what cannot be read is said by another check
        yield from ((found.path, found.mode) for found in too_wide(config.hub.data_dir))
    folder = config.hub.data_dir.resolve()
    database = make_url(config.store_url)
    secrets = {path for path in config.private_files if path != config.file}
    if database.get_backend_name() == "sqlite" and database.database:
        secrets |= {Path(database.database + suffix) for suffix in ("", "-wal", "-shm")}
    for path in sorted(secrets):
        with suppress(OSError):
            mode = stat.S_IMODE(path.stat().st_mode)
            if mode & OTHERS and not path.resolve().is_relative_to(folder):
                yield path, mode


def _admin_from_elsewhere() -> bool:
    names = ("HUBBUB_ADMIN_TOKEN", "HUBBUB_ADMIN_TOKEN_FILE")
    return any(os.environ.get(name) for name in names)


def _database(config: Config) -> Finding:
    """Open the database without changing it, and compare its tables with those of this version."""
    from sqlalchemy.exc import SQLAlchemyError

    from hubbub.errors import StoreUnavailableError
    from hubbub.store.connections import LOG_BYTES
    from hubbub.store.database import Database

    database = Database(config.store_url, sync=config.store.sync, timeout_s=config.store.timeout)
    try:
        database.check_files()
        if database.path is not None and not database.path.exists():
            return Finding("database", True, f"{database.path} is made at the first start")
        database.verify()
        if database.log_bytes > 2 * LOG_BYTES:
            return Finding(
                "database",
                False,
                f"its log has {database.log_bytes} bytes: something keeps an old state of it open",
                "end what else has it open, such as a sqlite3 shell; then it is cut short within a "
                "minute",
            )
        return _revision(database.engine)
    except StoreUnavailableError as error:
        return Finding("database", False, str(error), "look at its file, its folder and its rights")
    except (SQLAlchemyError, OSError) as error:
        says = f"{type(error).__name__}: {str(error).splitlines()[0]}"
        return Finding("database", False, says, "look at store.url, its server and its rights")
    finally:
        database.close()


def _revision(engine: object) -> Finding:
    from alembic.runtime.migration import MigrationContext
    from sqlalchemy import Engine

    from hubbub.store.migrate import HEAD

    assert isinstance(engine, Engine)
    with engine.connect() as connection:
        has = MigrationContext.configure(connection).get_current_revision()
    if has == HEAD:
        return Finding("database", True, f"opens, and is at revision {has}")
    if has is None:
        return Finding("database", True, "is empty; the first start makes its tables")
    return Finding(
        "database",
        False,
        f"is at revision {has}, this version has {HEAD}",
        "`hubbub db upgrade` brings it there; a newer one wants a newer hubbub",
    )


def _nearest(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that is there."""
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.exists())
