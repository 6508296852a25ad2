"""Real zips: good ones are unpacked as they are, bad ones leave nothing, whatever they say."""

from __future__ import annotations

import io
import stat
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub.errors import HubError, TooLargeError
from hubbub_kenko.runner import packages
from hubbub_kenko.runner.packages import (
    MANIFEST,
    MAX_ENTRIES,
    MAX_UNPACKED,
    PackageError,
    check_env,
    inspect,
    unpack,
)
from tests.adapters.kenko.admin.serving import MANIFEST as GOOD
from tests.adapters.kenko.admin.serving import zipped


def written(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "package.zip"
    path.write_bytes(content)
    return path


def test_a_good_package_is_read_and_unpacked(tmp_path: Path) -> None:
    """Its files and folders, and nothing else."""
    files = {MANIFEST: GOOD, "app.py": "print(1)", "lib/part.py": "x = 1", "lib/data/": ""}
    path = written(tmp_path, zipped(files))
    manifest = inspect(path)
    assert (manifest.name, manifest.version, manifest.entry) == ("app", "1.0", "app.py")
    unpack(path, tmp_path / "out")
    found = {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*")}
    assert found == {MANIFEST, "app.py", "lib", "lib/part.py", "lib/data"}


ESCAPES = [
    "../outside.py",
    "a/../../outside.py",
    "..",
    "/etc/outside.py",
    "//etc/outside.py",
    "a//outside.py",
    "./outside.py",
    "a/./outside.py",
    "..\\outside.py",
    "a\\..\\..\\outside.py",
    "C:\\outside.py",
    "C:/outside.py",
    "\\\\host\\share",
    "a/ /outside.py",
    "a\nb.py",
    "a\x7fb.py",
    "con*.py",
    "x" * 241,
    "app.py/inside.py",
    "APP.py",
    " app.py",
]


@pytest.mark.parametrize("name", ESCAPES)
def test_no_entry_leads_out(tmp_path: Path, name: str) -> None:
    """Neither looked at nor unpacked; nothing is left, beside it or in it."""
    content = {MANIFEST: GOOD, "app.py": "print(1)", name: "print('outside')"}
    path = written(tmp_path, zipped(content))
    with pytest.raises(PackageError):
        inspect(path)
    with pytest.raises(PackageError):
        unpack(path, tmp_path / "deep" / "out")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["deep", "package.zip"]


def test_a_name_with_nul_is_refused(tmp_path: Path) -> None:
    """Python cuts the name there; what is behind it counts too."""
    content = zipped({MANIFEST: GOOD, "app.py": "1", "zzz.py": "2"}).replace(b"zzz.py", b"z\0..py")
    with pytest.raises(PackageError):
        inspect(written(tmp_path, content))


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK])
def test_links_and_devices_are_refused(tmp_path: Path, kind: int) -> None:
    """A zip can hold them, a package cannot."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as package:
        package.writestr(MANIFEST, GOOD)
        package.writestr("app.py", "1")
        info = zipfile.ZipInfo("link")
        info.external_attr = (kind | 0o777) << 16
        package.writestr(info, "/etc/passwd")
    path = written(tmp_path, buffer.getvalue())
    with pytest.raises(PackageError, match="link or a device"):
        inspect(path)
    with pytest.raises(PackageError):
        unpack(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_bomb_is_refused_by_what_it_says(tmp_path: Path) -> None:
    """A file over the limit, small as it is in the zip; and many that are over it together."""
    zeros = bytes(1024**2)
    many = {f"part{number}": zeros for number in range(MAX_UNPACKED // 1024**2)}
    path = written(tmp_path, zipped({MANIFEST: GOOD, "app.py": "1", **many}))
    assert path.stat().st_size < 2 * 1024**2
    with pytest.raises(TooLargeError, match=r"the limit is \d+; send less$"):
        inspect(path)
    with pytest.raises(TooLargeError):
        unpack(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_bomb_that_lies_is_refused_by_what_comes_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sizes in its directory are small; what is unpacked is counted."""
    monkeypatch.setattr(packages, "MAX_UNPACKED", 100_000)
    content = zipped({MANIFEST: GOOD, "app.py": "1", "bomb": bytes(1_000_000)})
    lying = content.replace((1_000_000).to_bytes(4, "little"), (1000).to_bytes(4, "little"))
    assert lying != content
    path = written(tmp_path, lying)
    inspect(path)
    with pytest.raises((PackageError, TooLargeError)):
        unpack(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_entries_are_limited_at_their_edge(tmp_path: Path) -> None:
    """The most there may be, and one more."""
    some = {f"f{number}": "" for number in range(MAX_ENTRIES - 2)}
    inspect(written(tmp_path, zipped({MANIFEST: GOOD, "app.py": "1", **some})))
    with pytest.raises(PackageError, match="the limit is"):
        inspect(written(tmp_path, zipped({MANIFEST: GOOD, "app.py": "1", **some, "more": ""})))


def test_names_are_unique(tmp_path: Path) -> None:
    """Also where letter case is all that differs, or an entry comes twice."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as package:
        package.writestr(MANIFEST, GOOD)
        package.writestr("app.py", "1")
        with pytest.warns(UserWarning, match="Duplicate"):
            package.writestr("app.py", "2")
    with pytest.raises(PackageError, match="twice"):
        inspect(written(tmp_path, buffer.getvalue()))


MANIFESTS = {
    "no toml": "name = ",
    "not utf-8": b"name = '\xff'",
    "no name": 'entry = "app.py"',
    "empty name": 'name = ""\nentry = "app.py"',
    "long name": f'name = "{"n" * 129}"\nentry = "app.py"',
    "no entry": 'name = "a"',
    "entry is not there": 'name = "a"\nentry = "other.py"',
    "entry leads out": 'name = "a"\nentry = "../app.py"',
    "entry is no python": 'name = "a"\nentry = "kenko-app.toml"',
    "env is no text": 'name = "a"\nentry = "app.py"\n[env]\nA = 1',
    "env cannot be": 'name = "a"\nentry = "app.py"\n[env]\n"A=B" = "1"',
    "env of the linker": 'name = "a"\nentry = "app.py"\n[env]\nLD_PRELOAD = "x"',
    "labels are no table": 'name = "a"\nentry = "app.py"\n[runner]\nlabels = 3',
    "too long": "#" * 70_000,
}


@pytest.mark.parametrize("manifest", MANIFESTS.values(), ids=MANIFESTS)
def test_a_bad_manifest_is_named(tmp_path: Path, manifest: str | bytes) -> None:
    """The package is refused."""
    with pytest.raises(PackageError, match=r"kenko-app\.toml|variable|may not be set"):
        inspect(written(tmp_path, zipped({MANIFEST: manifest, "app.py": "1"})))


def test_without_a_manifest_it_is_no_package(tmp_path: Path) -> None:
    """Nor with one in a folder."""
    with pytest.raises(PackageError, match="at the top"):
        inspect(written(tmp_path, zipped({f"app/{MANIFEST}": GOOD, "app.py": "1"})))


@given(content=st.binary(max_size=300), cut=st.integers(0, 400))
def test_garbage_is_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, cut: int
) -> None:
    """Whatever the bytes are, also those of a package that was cut off or changed."""
    folder = tmp_path_factory.mktemp("garbage")
    good = zipped({MANIFEST: GOOD, "app.py": "print(1)"})
    for bytes_ in (content, good[:cut], good[:cut] + content[:4] + good[cut + 4 :]):
        path = written(folder, bytes_)
        try:
            inspect(path)
            unpack(path, folder / "out")
        except HubError:
            assert not (folder / "out").exists()
        else:
            unpack(path, folder / "out")
            (folder / "out").rename(folder / f"out{len(list(folder.iterdir()))}")


def test_variables_are_limited_at_their_edges() -> None:
    """Number and length."""
    check_env({f"V{number}": "x" * 4096 for number in range(100)})
    with pytest.raises(PackageError):
        check_env({f"V{number}": "" for number in range(101)})
    with pytest.raises(PackageError):
        check_env({"V": "x" * 4097})
    for name in ("", "1A", "A B", "A\0", "LD_LIBRARY_PATH", "A" * 129):
        with pytest.raises(PackageError):
            check_env({name: "x"})


def test_what_is_unpacked_is_private(tmp_path: Path) -> None:
    """Files and folders, those above them too, whatever the zip says of their modes."""
    files = {MANIFEST: GOOD, "app.py": "print(1)", "lib/deep/part.py": "x = 1", "data/": ""}
    unpack(written(tmp_path, zipped(files)), tmp_path / "deployments" / "dep" / "app")
    for path in (tmp_path / "deployments", *(tmp_path / "deployments").rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
