"""Packages: zip files with a manifest, `kenko-app.toml`; looked at whole before one is unpacked.

What a zip says of itself is not believed: names, kinds and sizes are checked for every entry, and
bytes are counted again while they are written.
"""

from __future__ import annotations

import lzma
import re
import shutil
import stat
import struct
import tomllib
import zipfile
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from hubbub.errors import InvalidError, TooLargeError
from hubbub.file_modes import make_folder, open_binary

__all__ = [
    "MANIFEST",
    "MAX_ENTRIES",
    "MAX_PACKAGE",
    "MAX_UNPACKED",
    "Manifest",
    "PackageError",
    "check_env",
    "inspect",
    "unpack",
]

MANIFEST: Final = "kenko-app.toml"

MAX_PACKAGE: Final = 50 * 1024**2
"""Bytes of a zip."""

MAX_UNPACKED: Final = 200 * 1024**2
"""Bytes of all its files."""

MAX_ENTRIES: Final = 5000
MAX_MANIFEST: Final = 64 * 1024
MAX_PATH: Final = 240
"""Characters of a name in a zip."""

_MAX_ENV: Final = 100
_MAX_VALUE: Final = 4096
_CHUNK: Final = MAX_MANIFEST
_ENCRYPTED: Final = 0x1
_DAMAGED: Final = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, NotImplementedError,
    OSError, OverflowError, RuntimeError, ValueError,
)  # fmt: skip
"""What Python raises over a zip that is none."""

_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}", re.ASCII)
_ODD: Final = re.compile(r"[\x00-\x1f\x7f\\:*?\"<>|]")


class PackageError(InvalidError):
    """A package that cannot be used."""

    code = "bad_package"


class _Runner(msgspec.Struct):
    labels: dict[str, str] = {}


class Manifest(msgspec.Struct, kw_only=True):
    """`kenko-app.toml`.

    Attributes:
        entry: Path of the Python file that is run, inside the package.
        env: Variables of its process.
        runner: Labels that a runner of it must have.
    """

    name: str
    version: str = ""
    entry: str
    env: dict[str, str] = {}
    runner: _Runner = msgspec.field(default_factory=_Runner)

    def view(self) -> dict[str, Any]:
        """Return it as it is shown: variables by name only, they may hold secrets."""
        return {
            "name": self.name,
            "version": self.version,
            "entry": self.entry,
            "env": sorted(self.env),
            "labels": self.runner.labels,
        }


@dataclass(frozen=True, slots=True)
class _Checked:
    """A zip whose entries may be unpacked: each with its path."""

    files: dict[str, zipfile.ZipInfo]
    folders: tuple[str, ...]


def inspect(path: Path) -> Manifest:
    """Return the manifest of a zip, if all of it may be unpacked.

    Raises:
        PackageError: it is no zip, has an entry that may not be, or no good manifest.
        TooLargeError: it would be too large.
    """
    with _opened(path) as package:
        checked = _checked(package)
        info = checked.files.get(MANIFEST)
        if info is None:
            raise PackageError(f"there is no {MANIFEST} at the top of the package")
        if info.file_size > MAX_MANIFEST:
            raise PackageError(f"{MANIFEST} is over {MAX_MANIFEST} bytes")
        text = next(_chunks(package, info), b"")
        return _manifest(text, checked)


def unpack(path: Path, target: Path) -> None:
    """Write the files of a zip into a folder, which is made anew.

    Raises:
        PackageError: an entry may not be, or is damaged; nothing is left of it.
        TooLargeError: it is larger than it says.
    """
    shutil.rmtree(target, ignore_errors=True)
    make_folder(target)
    try:
        with _opened(path) as package:
            checked = _checked(package)
            for folder in checked.folders:
                make_folder(target / folder)
            left = MAX_UNPACKED
            for name, info in checked.files.items():
                left -= _write(package, info, target / name, left)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise


def _opened(path: Path) -> zipfile.ZipFile:
    with _readable():
        return zipfile.ZipFile(path)


def _checked(package: zipfile.ZipFile) -> _Checked:
    infos = package.infolist()
    if len(infos) > MAX_ENTRIES:
        raise PackageError(f"the package has {len(infos)} entries, the limit is {MAX_ENTRIES}")
    files: dict[str, zipfile.ZipInfo] = {}
    folders: list[str] = []
    seen: set[str] = set()
    size = 0
    for info in infos:
        name = _path(info)
        if name.casefold() in seen:
            raise PackageError(f"the package has {name[:80]!r} twice")
        seen.add(name.casefold())
        if info.is_dir():
            folders.append(name)
            continue
        size += info.file_size
        if size > MAX_UNPACKED:
            raise _too_large(size)
        files[name] = info
    _check_tree(files)
    return _Checked(files, tuple(folders))


def _path(info: zipfile.ZipInfo) -> str:
    """Return where an entry goes; the same as its name, or it is refused."""
    name = info.orig_filename.removesuffix("/")
    parts = name.split("/")
    if (
        len(name) > MAX_PATH
        or _ODD.search(name)
        or any(part in ("", ".", "..") or part != part.strip(" ") for part in parts)
    ):
        raise PackageError(
            f"the package has an entry {name[:80]!r}; names are relative, without '..', "
            "backslashes, drives and control characters"
        )
    mode = info.external_attr >> 16
    kind = stat.S_IFMT(mode)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise PackageError(f"{name[:80]!r} is a link or a device; a package has files only")
    if (kind == stat.S_IFDIR) != info.is_dir() and kind != 0:
        raise PackageError(f"{name[:80]!r} says that it is a folder and a file")
    if info.flag_bits & _ENCRYPTED:
        raise PackageError(f"{name[:80]!r} is encrypted")
    return name


def _check_tree(files: dict[str, zipfile.ZipInfo]) -> None:
    """Refuse a file that is also the folder of another one."""
    for name in files:
        for place, letter in enumerate(name):
            if letter == "/" and name[:place] in files:
                raise PackageError(f"{name[:place][:80]!r} is a file and a folder")


def _write(package: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, left: int) -> int:
    make_folder(path.parent)
    written = 0
    with open_binary(path, "xb") as target:
        for chunk in _chunks(package, info):
            written += len(chunk)
            if written > left or written > info.file_size:
                raise _too_large(MAX_UNPACKED - left + written)
            target.write(chunk)
    return written


def _chunks(package: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    """Yield a file of a zip."""
    with _readable(), package.open(info) as file:
        while chunk := file.read(_CHUNK):
            yield chunk


@contextmanager
def _readable() -> Generator[None]:
    """Tell in words of the hub what is wrong with a zip."""
    try:
        yield
    except _DAMAGED as error:
        raise PackageError(f"the package is no zip file, or damaged: {error}") from error


def _too_large(size: int) -> TooLargeError:
    return TooLargeError(what="what is in the package", size_bytes=size, limit_bytes=MAX_UNPACKED)


def _manifest(text: bytes, checked: _Checked) -> Manifest:
    try:
        manifest = msgspec.convert(tomllib.loads(text.decode()), Manifest)
    except (ValueError, msgspec.ValidationError) as error:
        raise PackageError(f"{MANIFEST}: {error}") from error
    if not 1 <= len(manifest.name) <= 128:  # noqa: PLR2004  # as names of applications
        raise PackageError(f"{MANIFEST}: name must have 1 to 128 characters")
    if manifest.entry not in checked.files or not manifest.entry.endswith(".py"):
        raise PackageError(
            f"{MANIFEST}: entry is {manifest.entry[:80]!r}, which is no Python file of the package"
        )
    check_env(manifest.env)
    return manifest


def check_env(env: dict[str, str]) -> None:
    """Refuse variables that a process cannot have, or that would change how Python starts.

    Raises:
        PackageError: it has such a one.
    """
    if len(env) > _MAX_ENV:
        raise PackageError(f"there are {len(env)} variables, the limit is {_MAX_ENV}")
    for name, value in env.items():
        if not _VARIABLE.fullmatch(name) or "\0" in value or len(value) > _MAX_VALUE:
            raise PackageError(f"{name[:80]!r} is no variable, or its value is too long")
        if name.startswith("LD_"):
            raise PackageError(f"{name[:80]!r} may not be set")
