"""Bodies that end too early, or not at all, and an adapter that is down: errors in kenko's form."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from hubbub.config import Address
from hubbub.testing import TcpPeer
from hubbub.web.bodies import DISCARDED
from tests.adapters.kenko.admin.serving import ADMIN, TOML, Kenko, running_kenko

LIMIT = 65_536
SMALL = TOML.replace("[hub]\n", f"[hub]\nmax_body = {LIMIT}\n")


async def begin(kenko: Kenko, path: str, *more: str) -> TcpPeer:
    """Send the head of a request."""
    host, _, port = kenko.url.removeprefix("http://").partition(":")
    peer = await TcpPeer.connect(Address(host, int(port)))
    lines = [f"POST /api/kenko{path} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {ADMIN}"]
    await peer.send(("\r\n".join((*lines, *more)) + "\r\n\r\n").encode())
    return peer


async def answer_to(peer: TcpPeer) -> tuple[bytes, list[bytes], Any]:
    """Return status line, headers and body of an answer."""
    status = await peer.line()
    headers = [await peer.line()]
    while headers[-1] != b"\r\n":
        headers.append(await peer.line())
    length = next(int(line[16:]) for line in headers if line.startswith(b"content-length"))
    async with asyncio.timeout(10):
        return status, headers, json.loads(await peer.reader.readexactly(length))


@pytest.mark.parametrize("kind", ["application/zip", "multipart/form-data; boundary=x"])
async def test_half_a_package_leaves_nothing(
    kenko: Kenko, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither a file nor a line above debug: its sender has hung up."""
    head = (f"Content-Type: {kind}", "Content-Length: 1000", "Expect: 100-continue")
    peer = await begin(kenko, "/packages", *head)
    assert await peer.line() == b"HTTP/1.1 100 Continue\r\n"  # so it waits for the body now
    await peer.send(b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nPK')
    with capture_logs() as logged:
        peer.vanish()
        async with asyncio.timeout(10):
            while not logged:  # noqa: ASYNC110  # nothing else tells that it was noticed
                await asyncio.sleep(0.005)
        assert (await kenko.get("/packages"))["items"] == []
    assert [(one["event"], one["log_level"]) for one in logged] == [("web.client_gone", "debug")]
    assert [one for one in caplog.records if one.levelno >= logging.WARNING] == []
    assert list((kenko.core.data_dir / "kenko" / "packages").iterdir()) == []


@pytest.mark.parametrize(("pieces", "closes"), [(DISCARDED, False), (DISCARDED + 1, True)])
async def test_who_still_sends_hears_of_the_limit(
    tmp_path: Path, pieces: int, closes: bool
) -> None:
    """The rest is thrown away, so that the refusal arrives; of far too much it is not."""
    async with running_kenko(tmp_path / "hub", SMALL) as kenko:
        peer = await begin(kenko, "/simulate", "Transfer-Encoding: chunked")
        try:
            for _ in range(pieces):
                await peer.send(b"10000\r\n" + b"x" * LIMIT + b"\r\n")
            if not closes:
                await peer.send(b"0\r\n\r\n")
            status, headers, body = await answer_to(peer)
        finally:
            await peer.close()
        assert status == b"HTTP/1.1 413 Request Entity Too Large\r\n"
        assert body["error"]["code"] == "too_large"
        assert (b"connection: close\r\n" in headers) == closes


async def test_while_the_adapter_is_down_it_is_503(kenko: Kenko) -> None:
    """For its own paths and those it hands on, with a token and without."""
    await kenko.core.adapters.get("kenko").adapter.stop()
    for path in ("/apps", "/packages", "/system"):
        for headers in ({}, {"authorization": ""}):
            answer = await kenko.client.get(path, headers=headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")


async def test_other_methods_are_refused_in_the_same_form(kenko: Kenko) -> None:
    """With those that there are."""
    answer = await kenko.client.put("/apps/x")
    assert (answer.status_code, answer.json()["error"]["code"]) == (405, "method_not_allowed")
    assert answer.headers["allow"] == "DELETE, GET"


async def test_a_package_is_fetched_with_a_signed_url_only(kenko: Kenko) -> None:
    """No token helps; the refusal is in the form of these paths."""
    for query in ({}, {"expires": "9999999999", "signature": "x"}, {"expires": "soon"}):
        answer = await kenko.client.get("/packages/pkg_1/content", params=query)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "bad_signature")
