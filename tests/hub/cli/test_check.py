"""`hubbub check` and `hubbub init`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hubbub.cli.app import main

ROUTES = """
[[routes]]
name = "orders"
match = "orders.*.created"
to = ["stream.{subject.1}", "audit.>"]
where = { "data.total" = { gt = 100 } }

[[routes.test]]
given = { subject = "orders.eu.created", data = { total = 101 } }
to = ["audit.>", "stream.eu"]

[[routes.test]]
given = { subject = "orders.eu.created", data = { total = %d } }
to = []
"""


def check(path: Path, text: str, *more: str) -> int:
    file = path / "hub.toml"
    file.write_text(text, encoding="utf-8")
    return main(["check", "--config", str(file), *more])


def test_a_good_file_is_ok(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(tmp_path, ROUTES % 100) == 0
    captured = capsys.readouterr()
    assert "hub.toml: ok; checked" in captured.out
    assert "1 route, 2 route tests" in captured.out
    assert captured.err == ""


def test_nothing_is_written(tmp_path: Path) -> None:
    assert check(tmp_path, ROUTES % 100, "--set", f"hub.data_dir={tmp_path / 'data'}") == 0
    assert [path.name for path in tmp_path.iterdir()] == ["hub.toml"]


def test_a_failing_route_test_names_its_line_and_where_it_goes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(tmp_path, ROUTES % 500) == 1
    error = capsys.readouterr().err
    assert "hub.toml:12: test 2 of route 'orders': 'orders.eu.created' goes to" in error
    assert "'stream.eu', 'audit.>' by 'orders', the test wants nowhere" in error


def test_a_route_that_nearly_matched_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROUTES % 100).replace("total = 101", "total = 99")
    assert check(tmp_path, text) == 1
    assert "the condition of route 'orders' does not hold" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[hub]\nprot = 1\n", "hub.toml:2: hub.prot: unknown key; did you mean 'port'?"),
        ("[adapters.nobody]\nenabled = true\n", "adapters.nobody: no adapter of this name"),
        ("[hub]\nport = 99999\n", "hub.toml:2: hub.port"),
        (
            '[[routes]]\nname = "a"\nmatch = "a"\nto = ["b"]\nwhere = { "data.x" = { re = 1 } }\n',
            "hub.toml:5: routes.0.where: where 'data.x' has the operator 're'",
        ),
        (
            '[[routes]]\nname = "a"\nmatch = "a"\nto = ["b"]\n\ntransform = "no:such"\n',
            "hub.toml:6: route 'a': no plugin offers the transform 'no'",
        ),
        (
            "[adapters.relay]\nenabled = true\nlisen = []\n",
            "hub.toml:3: adapters.relay.lisen: unknown key; did you mean 'listen'?",
        ),
        ('[hub]\nplugins = ["relais"]\n', "hub.toml:2: hub.plugins.0: no plugin 'relais' is"),
        (
            '[engine]\nkind = "nats"\nurl = "nats://127.0.0.1:4222"\n',
            'hub.toml:2: engine.kind: only "local" is there yet',
        ),
        (
            """[[routes]]\nname = "a"\nmatch = "a"\nto = ["b"]
            [[routes.test]]\ngiven = { subject = "a", dta = 1 }\nto = ["b"]\n""",
            "given.dta: unknown key; did you mean 'data'?",
        ),
    ],
    ids=[
        "near miss",
        "no adapter",
        "range",
        "operator",
        "transform",
        "key of an adapter",
        "plugin that is not there",
        "engine",
        "given",
    ],
)
def test_every_error_has_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, says: str
) -> None:
    assert check(tmp_path, text) == 1
    captured = capsys.readouterr()
    assert says in captured.err
    assert "1 problem" in captured.out


def test_json_holds_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(tmp_path, ROUTES % 500, "--json") == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["ok"] is False
    assert len(answer["problems"]) == 1
    assert (answer["routes"], answer["route_tests"]) == (1, 2)


def test_certificates_are_opened(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Those of the hub and of adapters that are on; each line says what is wrong with which."""
    (tmp_path / "garbage.pem").write_text("hello", encoding="utf-8")
    text = (
        '[hub]\n[hub.tls]\ncert = "garbage.pem"\nkey = "garbage.pem"\n'
        '[adapters.relay]\nenabled = true\ntls = { cert = "no.pem", key = "no.key" }\n'
    )
    assert check(tmp_path, text) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert "hub.toml:2: hub.tls.cert " in first
    assert "both are PEM" in first
    assert "hub.toml:7: adapters.relay.tls.cert: cannot read" in second
    assert check(tmp_path, text.replace("true", "false").partition("[hub.tls]")[0]) == 0


def test_run_says_every_problem_and_exits_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "hub.toml"
    file.write_text("[hub]\nprot = 1\nnmae = 2\n", encoding="utf-8")
    assert main(["run", "--config", str(file)]) == 1
    assert [
        line.rpartition("hub.toml:")[2][:2] for line in capsys.readouterr().err.splitlines()
    ] == [
        "2:",
        "3:",
    ]


def test_init_writes_what_check_accepts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "new"
    assert main(["init", str(folder)]) == 0
    assert "/var/" in (folder / ".gitignore").read_text(encoding="utf-8")
    assert main(["check", "--config", str(folder / "hub.toml")]) == 0, capsys.readouterr().err


def test_init_leaves_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "hub.toml").write_text("# mine\n", encoding="utf-8")
    assert main(["init", str(tmp_path)]) == 0
    assert (tmp_path / "hub.toml").read_text(encoding="utf-8") == "# mine\n"
    assert "left as it is" in capsys.readouterr().out
