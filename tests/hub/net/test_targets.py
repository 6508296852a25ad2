"""URLs of dials: what is read, and what of it may be shown."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub.config import Address, ClientTlsSettings
from hubbub.errors import InvalidError
from hubbub.net.targets import MAX_URL, read_url, shown_url
from hubbub.net.websocket_dialer import check_headers
from tests.hub.net.conftest import Bench, accept, request_of

WORD = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=8, max_size=20).map(
    "SECRET".__add__
)


@given(WORD, WORD, WORD)
def test_what_is_secret_is_not_shown(user: str, password: str, token: str) -> None:
    """Names of the query are, its values, user and password are not."""
    url = f"ws://{user}:{password}@[::1]:80/path?access_token={token}&x=1&{token}"
    assert shown_url(url) == "ws://[::1]:80/path?access_token=***&x=***"
    assert shown_url(f"wss://h/?{token}") == "wss://h/?***"


@pytest.mark.parametrize(
    "url",
    [
        "http://SECRET@host/",
        "ws://",
        "ws:///SECRET",
        "ws://SECRET@host",
        "ws://u:SECRET@host:99999/",
        "ws://u:SECRET@host/#fragment",
        "ws://[::1/?SECRET",
        "ws://host/a b?SECRET=SECRET",
        "ws://host/\r\nX: y?SECRET=1",
        "SECRET",
        "ws://host/?" + "SECRET" * 400,
    ],
)
def test_urls_that_cannot_be_dialled(url: str) -> None:
    """The error says what is wrong without what is secret."""
    with pytest.raises(InvalidError) as raised:
        read_url(url, None)
    shown = str(raised.value).replace("/SECRET", "").replace("SECRET=***", "")
    assert "SECRET" not in shown


def test_the_longest_url() -> None:
    """Its edge."""
    assert read_url("ws://host/".ljust(MAX_URL, "x"), None)[0].host == "host"
    with pytest.raises(InvalidError):
        read_url("ws://host/".ljust(MAX_URL + 1, "x"), None)


def test_encryption_goes_by_the_scheme() -> None:
    """Settings of it for a URL without are a mistake."""
    assert read_url("ws://host", None)[1].tls is None
    assert read_url("wss://host", None)[1].tls == ClientTlsSettings()
    assert read_url("wss://host", None)[1].address == Address("host", 443)
    with pytest.raises(InvalidError, match="wss"):
        read_url("ws://host", ClientTlsSettings())


@pytest.mark.parametrize(
    "headers",
    [
        {"": "x"},
        {"a b": "x"},
        {"X": "SECRET\r\nY: z"},
        {"X": "SECRET\0"},
        {"X": "SECRET\u0394"},
        {"Upgrade": "SECRET"},
        {"sec-websocket-key": "SECRET"},
    ],
)
def test_headers_that_cannot_be_sent(headers: dict[str, str]) -> None:
    """Neither another header, nor one of the handshake itself; values are not shown."""
    with pytest.raises(InvalidError) as raised:
        check_headers(headers)
    assert "SECRET" not in str(raised.value)


async def test_nothing_secret_is_logged(
    bench: Bench, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """Refused, lost and failing: not even where libraries log all they do."""
    caplog.set_level(logging.DEBUG)

    async def talk(reader: Any, writer: Any) -> None:
        if bench.came == 1:
            await request_of(reader)
            writer.write(b"HTTP/1.1 401 No\r\nContent-Length: 6\r\n\r\nSECRET")
        else:
            await accept(reader, writer)

    asked = 0

    def headers() -> dict[str, str]:
        nonlocal asked
        asked += 1
        return {"Authorization": "Bearer SECRET" + "\n" * (asked == 3)}

    address = await bench.peer(talk)
    url = f"ws://SECRET:SECRET@{address}/?access_token=SECRET"
    dial = bench.websocket(url, headers=headers)
    for number in (1, 2, 3):
        await bench.until_failed(dial, number)
        assert "SECRET" not in dial.reason
        await bench.clock.advance(dial.next_s)
    assert bench.failed("adapter") == 1
    captured = capsys.readouterr()
    said = captured.out + captured.err + caplog.text  # wherever the hub's log goes
    assert "dial.failed" in said
    assert "SECRET" not in said
