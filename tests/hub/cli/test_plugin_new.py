"""`hubbub plugin new` writes a package that installs, passes its tests and is found."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from hubbub.cli.app import main

HATCHLING = importlib.util.find_spec("hatchling") is not None


def python(*args: str, paths: list[Path], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *args],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))},
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )


def install(package: Path, site: Path) -> None:
    """Install it as pip does; without its build backend, write what pip would have written."""
    if HATCHLING:
        options = ("--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--target")
        done = python("-m", "pip", "install", *options, str(site), ".", paths=[], folder=package)
        assert done.returncode == 0, done.stderr
        return
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    points = "".join(f"{k} = {v}\n" for k, v in project["entry-points"]["hubbub"].items())
    (info / "entry_points.txt").write_text(f"[hubbub]\n{points}")
    for folder in package.glob("hubbub_*"):
        (site / folder.name).symlink_to(folder)


@pytest.mark.timeout(120)
def test_a_new_package_installs_passes_its_tests_and_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before it is installed and after."""
    monkeypatch.chdir(tmp_path)
    assert main(["plugin", "new", "word-count"]) == 0
    assert "wrote hubbub-word-count/pyproject.toml" in capsys.readouterr().out
    package, site = tmp_path / "hubbub-word-count", tmp_path / "site"
    tests = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:schemathesis")
    before = python(*tests, paths=[package], folder=package)
    assert "2 passed" in before.stdout, before.stdout + before.stderr
    install(package, site)
    after = python(*tests, paths=[site], folder=package)
    assert "2 passed" in after.stdout, after.stdout + after.stderr
    listed = python(
        "-m", "hubbub.cli", "plugin", "ls", "--json", "--url", "http://127.0.0.1:9",
        paths=[site], folder=tmp_path,
    )  # fmt: skip
    names = {one["name"]: one for one in json.loads(listed.stdout)["items"]}
    assert names["word_count"]["distribution"] == "hubbub-word-count"
    assert names["word_count"]["reason"] == ""


def test_what_is_there_is_not_written_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder with anything in it is refused."""
    (tmp_path / "mine").write_text("x")
    assert main(["plugin", "new", "x", "--dir", str(tmp_path)]) == 1
    assert "not empty" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["", "1x", "a b", "class", "Über", "../x", "a--b"])
def test_a_bad_name_is_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, and an example of a good one."""
    assert main(["plugin", "new", name]) == 2
    assert "word-count" in capsys.readouterr().err
