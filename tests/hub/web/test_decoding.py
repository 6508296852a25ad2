"""Names in requests: two that are sent as two never become one, and what cannot be read is 400."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from hubbub.config import Address
from hubbub.errors import MalformedError
from hubbub.subjects import escape, unescape
from hubbub.testing import TcpPeer
from hubbub.web.decoding import header, parse_query, unquote
from tests.hub.web.conftest import ADMIN, Served

PATH = "/api/v1/envelopes"
EVENT = {"ce-specversion": "1.0", "ce-type": "t", "ce-source": "s", "ce-subject": "a.b"}

LOSSY = {
    "no utf-8": "order-%FE",
    "another that is none": "order-%FF",
    "too long for its character": "%C0%A0",
    "half a surrogate pair": "%ED%A0%80",
    "cut off": "%E2%82",
    "no hex digits": "100%",
    "one hex digit": "a%4",
    "not hex": "a%zz",
}


async def raw(served: Served, method: str, target: str, *lines: bytes, body: bytes = b"") -> Any:
    """Send a request byte for byte as the administrator; returns status and answer."""
    host, _, port = served.url.removeprefix("http://").rpartition(":")
    peer = await TcpPeer.connect(Address(host, int(port)))
    head = [
        f"{method} {target} HTTP/1.1".encode(), b"host: 127.0.0.1", b"connection: close",
        f"authorization: Bearer {ADMIN}".encode(), b"content-length: %d" % len(body), *lines,
    ]  # fmt: skip
    await peer.send(b"\r\n".join(head) + b"\r\n\r\n" + body)
    answer = await peer.rest()
    await peer.close()
    status = int(answer.split(b" ", 2)[1])
    text = answer.partition(b"\r\n\r\n")[2]
    return status, json.loads(text) if text.startswith(b"{") else text


def attributes(**more: bytes) -> list[bytes]:
    """Return the header lines of a binary event."""
    lines = [f"{name}: {value}".encode() for name, value in EVENT.items()]
    return lines + [f"ce-{name}: ".encode() + value for name, value in more.items()]


@pytest.mark.parametrize("name", LOSSY.values(), ids=LOSSY)
async def test_a_name_in_a_header_is_decoded_whole_or_refused(served: Served, name: str) -> None:
    """Two ids that differ are not one event and its repetition."""
    status, problem = await raw(served, "POST", PATH, *attributes(id=name.encode()), body=b"1")
    assert (status, problem["code"]) == (400, "malformed")
    assert "ce-id" in problem["detail"]
    assert await served.pages(PATH) == []


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (b"plain", "plain"),
        (b"%C3%A9%E2%82%AC", "é€"),
        (b"%2541", "%41"),
        (b'"quoted"', "quoted"),
        (b'"say \\"hi\\" \\\\"', 'say "hi" \\'),
        (b'"a%22b"', 'a"b'),
        (b"two words", "two words"),
        (b"null", "null"),
        (b"007", "007"),
    ],
)
async def test_a_header_is_unquoted_and_decoded_once(
    served: Served, sent: bytes, kept: str
) -> None:
    """As the HTTP binding of CloudEvents says, 3.1.3.2; a text stays a text."""
    lines = attributes(id=sent, partitionkey=sent)
    status, answer = await raw(served, "POST", PATH, *lines, body=b"1")
    assert (status, answer["id"]) == (202, kept), answer
    (event,) = await served.pages(PATH)
    assert (event["id"], event["partitionkey"]) == (kept, kept)


@pytest.mark.parametrize("value", [b"caf\xc3\xa9", b"caf\xe9", b'half "open', b'"open', b'"a\\"'])
async def test_a_header_that_cannot_be_meant_is_400(served: Served, value: bytes) -> None:
    """Raw bytes above 0x7F, and quotes that are not around all of it."""
    status, problem = await raw(served, "POST", PATH, *attributes(id=value), body=b"1")
    assert (status, problem["code"]) == (400, "malformed")


TWICE: dict[str, tuple[str, str, list[bytes], bytes]] = {
    "id": ("POST", PATH, [*attributes(id=b"a"), b"ce-id: b"], b"1"),
    "the same id": ("POST", PATH, [*attributes(id=b"a"), b"CE-ID: a"], b"1"),
    "specversion": ("POST", PATH, [*attributes(), b"ce-specversion: 1.0"], b"1"),
    "extension": ("POST", PATH, [*attributes(foo=b"a"), b"ce-foo: b"], b"1"),
    "type of data": (
        "POST", PATH, [*attributes(), b"content-type: text/plain", b"content-type: text/html"],
        b"1",
    ),
    "key": (
        "POST", PATH, [b"idempotency-key: a", b"idempotency-key: b"], b'{"subject":"a","data":1}',
    ),
    "key of a task": (
        "POST", "/api/v1/tasks", [b"idempotency-key: a", b"idempotency-key: b"],
        b'{"task_type":"x"}',
    ),
    "token": ("GET", PATH, [b"authorization: Bearer other"], b""),
    "place in a stream": (
        "GET", "/api/v1/stream", [b"last-event-id: a", b"last-event-id: b"], b"",
    ),
}  # fmt: skip


@pytest.mark.parametrize("request_", TWICE.values(), ids=TWICE)
async def test_a_header_that_names_something_is_there_once(
    served: Served, request_: tuple[str, str, list[bytes], bytes]
) -> None:
    """Neither the first nor the last is taken."""
    method, target, lines, body = request_
    status, problem = await raw(served, method, target, *lines, body=body)
    assert (status, problem["code"]) == (400, "malformed"), problem
    assert "twice" in problem["detail"]
    assert await served.pages(PATH) == []


async def test_two_traces_are_none(served: Served) -> None:
    """A request that names two traces begins a new one (W3C Trace Context, 3.2.2.1)."""
    lines = [b"traceparent: 00-%b-b7ad6b7169203331-01" % (digit * 32) for digit in (b"a", b"b")]
    body = b'{"subject":"a","data":1}'
    status, answer = await raw(served, "POST", PATH, *lines, body=body)
    assert status == 202
    assert answer["trace_id"] not in ("a" * 32, "b" * 32)


@pytest.mark.parametrize("name", LOSSY.values(), ids=LOSSY)
@pytest.mark.parametrize(
    "target",
    [
        PATH + "/{}", "/api/v1/traces/{}", "/api/v1/endpoints/stream.{}", "/api/v1/routes/{}",
        "/nowhere/{}", PATH + "?subject={}", PATH + "?{}=1", "/api/v1/deliveries?endpoint={}",
        "/api/v1/stream?subject={}",
    ],
)  # fmt: skip
async def test_a_name_in_an_address_is_decoded_whole_or_refused(
    served: Served, target: str, name: str
) -> None:
    """In paths and in queries, on the hub's own paths and on others."""
    status, problem = await raw(served, "GET", target.format(name))
    assert (status, problem["code"]) == (400, "malformed"), problem


async def test_a_replacement_character_that_was_sent_is_one(served: Served) -> None:
    """U+FFFD and a percent sign are characters like others."""
    for name, path in (("a\ufffd", "a%EF%BF%BD"), ("50%", "50%25"), ("%41", "%2541")):
        published = await served.publish("a.b", 1, id=name)
        assert published["id"] == name
        status, shown = await raw(served, "GET", f"{PATH}/{path}")
        assert (status, shown["envelope"]["id"]) == (200, name)


async def test_a_parameter_that_is_one_thing_is_there_once(served: Served) -> None:
    """The second one is not left out in silence; what may be repeated may."""
    status, problem = await raw(served, "GET", PATH + "?type=a&type=b")
    assert (status, problem["code"]) == (422, "invalid")
    status, _ = await raw(served, "GET", "/api/v1/traces?endpoint=a&endpoint=b")
    assert status == 200


@pytest.mark.parametrize("query", ["name=%FF", "subject=%FE", "label=a:%80", "name=a&name=b"])
async def test_a_stream_is_refused_a_name_that_is_none(served: Served, query: str) -> None:
    """Before it is one: `stream.` and a replacement would be everybody's."""
    url = served.url.replace("http", "ws") + "/api/v1/stream?" + query
    headers = {"Authorization": f"Bearer {ADMIN}"}
    with pytest.raises(InvalidStatus) as refused:
        await connect(url, additional_headers=headers, proxy=None)
    assert refused.value.response.status_code == (422 if "&" in query else 400)


async def test_a_socket_on_a_path_that_is_none_is_400(served: Served) -> None:
    """As for requests."""
    with pytest.raises(InvalidStatus) as refused:
        await connect(served.url.replace("http", "ws") + "/a%FF", proxy=None)
    assert refused.value.response.status_code == 400


@given(st.text())
def test_what_is_encoded_is_decoded(text: str) -> None:
    """Every character survives, and every other spelling is another name or none."""
    try:
        encoded = "".join(f"%{byte:02x}" for byte in text.encode())
    except UnicodeEncodeError:
        return
    assert unquote(encoded, what="it") == text
    assert parse_query(f"a={encoded}".encode()) == [("a", text)]


@given(st.binary(max_size=4), st.binary(max_size=4))
def test_two_names_never_become_one(one: bytes, other: bytes) -> None:
    """Whatever bytes they are made of."""
    found: list[str] = []
    for name in (one, other):
        try:
            found.append(unquote("".join(f"%{byte:02X}" for byte in name), what="it"))
        except MalformedError:
            return
    assert (found[0] == found[1]) is (one == other)


def test_a_token_that_is_no_escape_stays_as_it_is() -> None:
    """Subjects come from publishers: a token need not be one that `escape` makes."""
    for token in ("%FF", "%41", "a%", "%zz"):
        assert unescape(token) == token
    for text in ("", "a.b", "%", "é x", "\ud800"):
        assert unescape(escape(text)) == text


def test_a_header_is_utf8() -> None:
    """What is not is not read as something else."""
    assert header([(b"a", b"caf\xc3\xa9")], b"a") == "café"
    with pytest.raises(MalformedError, match="UTF-8"):
        header([(b"a", b"caf\xe9")], b"a")
