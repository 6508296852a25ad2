"""The client: which token it takes, how it reads a stream, what it says of errors."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx2
import pytest

from hubbub.cli.app import main
from hubbub.cli.client import HubClient, local_token
from hubbub.cli.errors import ApiError


def test_the_token_is_that_of_the_hub_in_this_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("var", "data", "other"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "admin.token").write_text(f"of {folder}\n", encoding="utf-8")
    assert local_token({}) == "of var"
    (tmp_path / "hub.toml").write_text('[hub]\ndata_dir = "data"\n', encoding="utf-8")
    assert local_token({}) == "of data"
    assert local_token({"HUBBUB_HUB__DATA_DIR": "other"}) == "of other"
    assert local_token({"HUBBUB_ADMIN_TOKEN": "given"}) == "given"
    (tmp_path / "hub.toml").write_text("not toml", encoding="utf-8")
    assert local_token({}) == "of var"
    (tmp_path / "var" / "admin.token").unlink()
    assert local_token({}) is None


@pytest.mark.parametrize("body", [b"<html>hello</html>", b"[1]", b'{"n": 1e999}'])
def test_what_is_no_hub_is_told_as_such(body: bytes) -> None:
    """One line for a person, whatever answers there."""
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, content=body))
    with (
        HubClient("http://hub", "t", transport=transport) as hub,
        pytest.raises(ApiError, match=r"http://hub answered GET /api/v1/endpoints with something"),
    ):
        hub.get("/api/v1/endpoints")


PROBLEMS = {
    "problem": (
        httpx2.Response(404, json={"type": "tag:hubbub,2026:not_found", "detail": "no such thing"}),
        "no such thing",
        "not_found",
    ),
    "title only": (httpx2.Response(409, json={"title": "Conflict"}), "Conflict", ""),
    "with a trace": (
        httpx2.Response(500, json={"detail": "a mistake", "trace_id": "ab12"}),
        "a mistake (trace ab12)",
        "",
    ),
    "no json": (httpx2.Response(502, text="<html>"), "the hub answered 502 Bad Gateway", ""),
    "no object": (httpx2.Response(500, json=["?"]), "the hub answered 500", ""),
}


@pytest.mark.parametrize(("response", "says", "kind"), PROBLEMS.values(), ids=PROBLEMS)
def test_errors_are_one_message(response: httpx2.Response, says: str, kind: str) -> None:
    transport = httpx2.MockTransport(lambda _: response)
    with (
        HubClient("http://hub", "t", transport=transport) as hub,
        pytest.raises(ApiError) as caught,
    ):
        hub.get("/x")
    assert caught.value.message.startswith(says)
    assert caught.value.kind == kind


def test_a_list_is_read_over_all_its_pages() -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        start = int(request.url.params.get("cursor", 0))
        size = int(request.url.params["limit"])
        items = [{"n": n} for n in range(start, min(start + size, 2500))]
        more = start + size if start + size < 2500 else None
        return httpx2.Response(200, json={"items": items, "next": more and str(more)})

    with HubClient("http://hub", "t", transport=httpx2.MockTransport(answer)) as hub:
        assert len(hub.items("/list", 10_000)) == 2500
        assert len(hub.items("/list", 1001)) == 1001


# A stream that breaks


class Breaks(BaseHTTPRequestHandler):
    """Gives one envelope a connection, then hangs up."""

    asked: list[str | None]

    def do_GET(self) -> None:
        self.asked.append(self.headers["Last-Event-ID"])
        if len(self.asked) == 2:  # the hub is stopping
            self.send_response(503)
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        envelope = json.dumps({"id": str(len(self.asked)), "subject": "a.b"})
        self.wfile.write(f": hello\n\nid: {len(self.asked)}\nevent: envelope\n".encode())
        self.wfile.write(f"data: {envelope}\n\n".encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # its name there
        """Say nothing."""


@pytest.fixture
def breaking() -> Iterator[tuple[str, list[str | None]]]:
    asked: list[str | None] = []
    handler = type("Handler", (Breaks,), {"asked": asked})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()
        thread.join()


def test_tail_goes_on_where_a_lost_stream_ended(
    breaking: tuple[str, list[str | None]], capsys: pytest.CaptureFixture[str]
) -> None:
    url, asked = breaking
    assert main(["tail", "a.>", "--count", "2", "--json", "--url", url, "--token", "t"]) == 0
    captured = capsys.readouterr()
    assert [json.loads(line)["id"] for line in captured.out.splitlines()] == ["1", "3"]
    assert asked == [None, "1", "1"]
    assert captured.err.count("trying again in") == 2
