"""What holds for every command: help, exit codes, errors, plugins, pipes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

from hubbub.cli.app import build, main, own_names
from hubbub.cli.plugins import add_plugin_commands
from hubbub.hookspecs import hookimpl
from hubbub.observe.metrics import Metrics
from hubbub.plugins import Plugins

ROOT = Path(__file__).parents[3]
NOWHERE = "http://127.0.0.1:9"  # the discard port: nothing listens there


def commands() -> Iterator[tuple[str, ...]]:
    root = get_command(build())
    for name, command in sorted(inside(root).items()):
        yield (name,)
        yield from ((name, inner) for inner in sorted(inside(command)))


def inside(command: object) -> dict[str, object]:
    """Return the commands of a group; none for a command."""
    found: dict[str, object] = getattr(command, "commands", {})
    return found


COMMANDS = list(commands())


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help(command: tuple[str, ...]) -> None:
    result = CliRunner().invoke(build(), [*command, "--help"])
    assert result.exit_code == 0
    assert result.output.startswith(f"Usage: hubbub {' '.join(command)} ")


def test_the_list_of_commands_cuts_no_text() -> None:
    result = CliRunner().invoke(build(), ["--help"])
    listed = result.output.partition("Commands:")[2]
    assert "..." not in listed
    assert own_names() == {line.split()[0] for line in listed.splitlines() if line.strip()}


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_a_heading_in_the_docs(command: tuple[str, ...]) -> None:
    headings = {
        line.strip("# `")
        for line in (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("#")
    }
    assert " ".join(("hubbub", *command)) in headings


def test_usage_errors_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["publish"]) == 2
    assert main(["publish", "a", "--no-such"]) == 2
    assert main(["publish", "a", "--data", "{"]) == 2
    assert main(["endpoints", "--url", "nonsense"]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_no_hub_is_one_readable_message(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["endpoints", "--url", NOWHERE, "--token", "t"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        f"hubbub: cannot reach the hub at {NOWHERE}; is it running? start it with `hubbub run`, "
        "or name another with --url\n"
    )


def test_the_url_may_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HUBBUB_URL", NOWHERE)
    assert main(["healthcheck"]) == 1
    assert NOWHERE in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == 0
    assert main(["--version"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == second
    assert first.startswith("hubbub ")


# Plugins


class Adds:
    """A plugin with a command, a command of the hub's name, and a fake peer."""

    @hookimpl
    def cli_commands(self, app: typer.Typer) -> None:
        app.command("hello")(lambda: typer.echo("hello"))
        app.command("run")(lambda: typer.echo("not the hub"))
        peers = typer.Typer()
        peers.command("peer")(lambda: typer.echo("a fake peer"))
        app.add_typer(peers, name="simulate")


class Raises:
    """A plugin that fails when it is asked for commands."""

    @hookimpl
    def cli_commands(self, app: typer.Typer) -> None:
        raise ValueError("no commands today")


def with_plugins(*implementations: object) -> typer.Typer:
    plugins = Plugins(Metrics())
    for implementation in implementations:
        plugins.add(type(implementation).__name__.lower(), implementation)
    app = build()
    add_plugin_commands(app, own_names(), plugins=plugins)
    return app


def test_a_plugin_adds_commands_and_fake_peers() -> None:
    app = with_plugins(Adds())
    assert CliRunner().invoke(app, ["hello"]).output == "hello\n"
    assert CliRunner().invoke(app, ["simulate", "peer"]).output == "a fake peer\n"
    assert "A fake peer of a protocol." in CliRunner().invoke(app, ["simulate", "--help"]).output


def test_a_plugin_cannot_take_a_name_of_the_hub(capsys: pytest.CaptureFixture[str]) -> None:
    app = with_plugins(Adds())
    assert "command 'run' of" in capsys.readouterr().err
    assert "foreground" in CliRunner().invoke(app, ["run", "--help"]).output


def test_a_plugin_that_raises_is_reported_and_the_others_stay(
    capsys: pytest.CaptureFixture[str],
) -> None:
    app = with_plugins(Raises(), Adds())
    assert "plugin 'raises' has no commands now" in capsys.readouterr().err
    assert CliRunner().invoke(app, ["hello"]).exit_code == 0


# As a process


def hubbub(*args: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "hubbub.cli", *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": ""},
    )


def test_a_closed_pipe_is_quiet() -> None:
    with hubbub("--help") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""


def test_help_starts_without_heavy_rooms() -> None:
    """`--help` of a command imports neither the store, nor the HTTP client, nor rich."""
    code = (
        "import sys; from hubbub.cli import main; code = main(['run', '--help']);"
        "heavy = {'sqlalchemy', 'httpx2', 'rich', 'structlog'} & set(sys.modules);"
        "sys.exit(f'{code} {heavy}' if code or heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_exits_130_without_a_traceback(tmp_path: Path) -> None:
    """`tasks submit --params -` waits for its input until somebody gives up."""
    process = subprocess.Popen(
        [sys.executable, "-m", "hubbub.cli", "tasks", "submit", "x", "--params", "-"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        text=True,
    )
    with process:
        assert process.stdin is not None
        deadline = time.monotonic() + 20
        while not waits_for_input(process.pid) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()


def waits_for_input(pid: int) -> bool:
    """Tell whether a process is past its imports: it sleeps in a read from a pipe."""
    wchan = Path(f"/proc/{pid}/wchan")
    return "pipe" in wchan.read_text() if wchan.exists() else False


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_works(shell: str) -> None:
    env = {**os.environ, "_HUBBUB_COMPLETE": f"source_{shell}"}
    done = subprocess.run(
        [sys.executable, "-m", "hubbub.cli"], env=env, capture_output=True, text=True, check=False
    )
    assert "hubbub" in done.stdout
    env = {
        **os.environ,
        "_HUBBUB_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": "hubbub heal",
        "COMP_CWORD": "1",
        "_TYPER_COMPLETE_ARGS": "hubbub heal",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    done = subprocess.run(
        [sys.executable, "-m", "hubbub.cli"], env=env, capture_output=True, text=True, check=False
    )
    assert "healthcheck" in done.stdout
