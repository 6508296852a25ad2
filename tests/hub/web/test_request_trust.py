"""The rule of where requests come from, without sockets."""

from __future__ import annotations

from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub.config import HubSettings
from hubbub.web.request_trust import FOREIGN, UNKNOWN_HOST, RequestTrust, Verdict, is_local, names

HOST: Final = "127.0.0.1:17680"
OWN: Final = f"http://{HOST}"
EVIL: Final = "https://evil.example"
NAVIGATES: Final = [("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "navigate")]

Headers = list[tuple[str, str]]


def request(
    headers: Headers,
    *,
    host: str | None = HOST,
    peer: str = "127.0.0.1",
    kind: str = "http",
    method: str = "GET",
    version: str = "1.1",
) -> dict[str, Any]:
    """Return an ASGI scope."""
    given = headers if host is None else [("Host", host), *headers]
    return {
        "type": kind,
        "method": method,
        "http_version": version,
        "client": (peer, 50_000),
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in given],
    }


def judge(
    headers: Headers, *, loopback: bool = True, settings: dict[str, Any] | None = None, **how: Any
) -> Verdict:
    """Return the verdict on a request."""
    trust = RequestTrust(HubSettings(**(settings or {})), loopback=loopback)
    first = trust.judge(request(headers, **how))
    assert trust.judge(request(headers, **how)) == first, "remembered otherwise than it was judged"
    return first


def shown(verdict: Verdict) -> str:
    return verdict.refusal or ("local" if verdict.local else "remote")


ORIGINS: Final[dict[str, tuple[str, str, str]]] = {
    "as typed": (HOST, OWN, "local"),
    "another scheme": (HOST, f"https://{HOST}", "local"),
    "a WebSocket's scheme": (HOST, f"ws://{HOST}", "local"),
    "in capitals": ("LocalHost:17680", "HTTP://LOCALHOST:17680", "local"),
    "a dot at the end": ("localhost.:17680", "http://localhost:17680", "local"),
    "IPv6": ("[::1]:17680", "http://[::1]:17680", "local"),
    "IPv6 written otherwise": ("[0:0::1]:17680", "http://[::1]:17680", "local"),
    "a default port in one of them": ("127.0.0.1", "http://127.0.0.1:80", "local"),
    "the default port of https": ("127.0.0.1:443", "https://127.0.0.1", "local"),
    "a loopback name": ("hub.localhost:17680", "http://hub.localhost:17680", "local"),
    "an address of the network": ("192.0.2.1:17680", "http://192.0.2.1:17680", "remote"),
    "another port": (HOST, "http://127.0.0.1:17681", FOREIGN),
    "no port": (HOST, "http://127.0.0.1", FOREIGN),
    "another loopback name": (HOST, "http://localhost:17680", FOREIGN),
    "another host": (HOST, EVIL, FOREIGN),
    "the own as a subdomain": (HOST, "http://127.0.0.1:17680.evil.example", FOREIGN),
    "the own as a user": (HOST, "http://127.0.0.1:17680@evil.example", FOREIGN),
    "the own behind a path": (HOST, "http://evil.example/127.0.0.1:17680", FOREIGN),
    "the own with a path": (HOST, f"{OWN}/", FOREIGN),
    "the own behind a backslash": (HOST, "http://evil.example\\@127.0.0.1:17680", FOREIGN),
    "two in one": (HOST, f"{OWN}, {EVIL}", FOREIGN),
    "two with a blank": (HOST, f"{OWN} {EVIL}", FOREIGN),
    "null": (HOST, "null", FOREIGN),
    "a file": (HOST, "file://", FOREIGN),
    "an extension": (HOST, "chrome-extension://abcdef", FOREIGN),
    "an application that says the own host": (HOST, f"tauri://{HOST}", FOREIGN),
    "empty": (HOST, "", FOREIGN),
    "no scheme": (HOST, HOST, FOREIGN),
    "a wildcard": (HOST, "*", FOREIGN),
    "not ASCII": (HOST, "http://127.0.0.1:1768\u00b9", FOREIGN),
}


@pytest.mark.parametrize(("host", "origin", "expected"), ORIGINS.values(), ids=ORIGINS)
@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_an_origin_is_own_or_foreign(kind: str, host: str, origin: str, expected: str) -> None:
    """By host and port; whatever cannot be read is foreign."""
    assert shown(judge([("Origin", origin)], host=host, kind=kind)) == expected


HOSTS: Final[dict[str, tuple[str | None, str]]] = {
    "IPv4": ("127.0.0.1", "local"),
    "of 127.0.0.0/8": ("127.9.9.9:1", "local"),
    "IPv6": ("[::1]", "local"),
    "IPv4 in IPv6": ("[::ffff:127.0.0.1]:80", "local"),
    "localhost": ("localhost:17680", "local"),
    "below localhost": ("a.b.localhost", "local"),
    "an address": ("192.0.2.7:17680", "remote"),
    "an IPv6 address": ("[2001:db8::1]:17680", "remote"),
    "every address": ("0.0.0.0:17680", "remote"),
    "listed": ("hub.lan:99", "remote"),
    "of public_url": ("HUB.example.org", "remote"),
    "of a stranger": ("evil.example", UNKNOWN_HOST),
    "like localhost": ("notlocalhost", UNKNOWN_HOST),
    "localhost in front": ("localhost.evil.example", UNKNOWN_HOST),
    "a short address": ("127.1", UNKNOWN_HOST),
    "a number": ("2130706433", UNKNOWN_HOST),
    "a user": ("evil.example@127.0.0.1", UNKNOWN_HOST),
    "two": ("127.0.0.1, evil.example", UNKNOWN_HOST),
    "a port that is none": ("127.0.0.1:99999", UNKNOWN_HOST),
    "empty": ("", UNKNOWN_HOST),
    "none": (None, UNKNOWN_HOST),
}


@pytest.mark.parametrize(("host", "expected"), HOSTS.values(), ids=HOSTS)
def test_a_loopback_listener_knows_its_names(host: str | None, expected: str) -> None:
    """Names of loopback, addresses, and what is written; else 421."""
    settings = {"hosts": ("hub.lan",)}
    if host == "HUB.example.org":
        settings["public_url"] = "https://hub.example.org/base"  # type: ignore[assignment]
    assert shown(judge([], host=host, settings=settings)) == expected


def test_a_program_of_http_1_0_may_leave_the_host_out() -> None:
    """It passes, and is not local: nothing says by which name it came."""
    assert shown(judge([], host=None, version="1.0")) == "remote"


@pytest.mark.parametrize("header", ["Host", "Origin"])
def test_what_is_said_twice_is_nothing(header: str) -> None:
    """Also when both say the same: another part of the way may read the other one."""
    value = HOST if header == "Host" else OWN
    expected = UNKNOWN_HOST if header == "Host" else FOREIGN
    given = [(header, value)] if header == "Host" else [(header, value)] * 2
    assert shown(judge(given)) == expected
    wide = {"origins": ("*",), "hosts": ("hub.lan",)}
    assert shown(judge(given, settings=wide)) == expected


@pytest.mark.parametrize("host", ["hub", "evil.example", "my_service:17680", "a@b", ""])
def test_other_listeners_are_called_anything(host: str) -> None:
    """Service names of a compose file pass; nothing is local there."""
    assert shown(judge([], host=host, loopback=False)) == "remote"
    assert shown(judge([], host="127.0.0.1", loopback=False)) == "remote"


def test_a_service_name_has_an_origin_of_its_own() -> None:
    """Off loopback too: by the name that was asked for."""
    assert shown(judge([("Origin", "http://hub:1")], host="hub:1", loopback=False)) == "remote"
    assert shown(judge([("Origin", EVIL)], host="hub:1", loopback=False)) == FOREIGN


@pytest.mark.parametrize(
    "header",
    ["Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Server",
     "X-Forwarded", "X-Real-IP", "Via"],
)  # fmt: skip
def test_what_was_forwarded_is_not_local(header: str) -> None:
    """Whatever the header says; and its Host is the proxy's business."""
    for value in ("127.0.0.1", "for=127.0.0.1", "", "1.1 proxy"):
        assert shown(judge([(header, value)])) == "remote"
        assert shown(judge([(header, value)], host="evil.example")) == "remote"
        assert shown(judge([(header, value), ("Origin", EVIL)])) == FOREIGN


@pytest.mark.parametrize("peer", ["192.0.2.1", "::2", "testclient", "", "127.0.0.1.evil"])
def test_other_peers_are_not_local(peer: str) -> None:
    """A peer of the network, or none that can be read."""
    assert shown(judge([], peer=peer)) == "remote"


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.3.2.1", "::1", "::ffff:127.0.0.1"])
def test_peers_of_this_machine_are_local(peer: str) -> None:
    """All of its loopback addresses."""
    assert shown(judge([], peer=peer)) == "local"


@pytest.mark.parametrize(
    ("url", "expected"),
    [("", "local"), ("http://localhost:17680", "local"), ("https://[::1]", "local"),
     ("https://hub.example.org", "remote"), ("http://192.0.2.1:80", "remote")],
)  # fmt: skip
def test_a_public_hub_has_no_local_requests(url: str, expected: str) -> None:
    """With a public_url any peer may be a proxy."""
    assert shown(judge([], settings={"public_url": url})) == expected


def test_the_public_url_is_an_origin_of_the_hub() -> None:
    """By host and port; a path of it, the scheme and default ports do not matter."""
    settings = {"public_url": "https://Hub.example.org:443/base"}
    for origin in (
        "https://hub.example.org",
        "http://hub.example.org",
        "wss://hub.example.org:443",
    ):
        assert shown(judge([("Origin", origin)], settings=settings)) == "remote"
    for origin in ("https://hub.example.org:8443", "https://a.hub.example.org"):
        assert shown(judge([("Origin", origin)], settings=settings)) == FOREIGN


NAMED: Final[dict[str, tuple[tuple[str, ...], str, bool]]] = {
    "named": (("https://app.example",), "https://app.example", True),
    "in capitals": (("https://APP.example/",), "https://App.Example", True),
    "with its default port": (("https://app.example:443",), "https://app.example", True),
    "with the port of another scheme": (("http://app.example:443",), "https://app.example", False),
    "of another scheme": (("https://app.example",), "http://app.example", False),
    "of another port": (("https://app.example",), "https://app.example:444", False),
    "of a subdomain": (("https://app.example",), "https://x.app.example", False),
    "null": (("null",), "null", True),
    "null without being named": (("https://app.example",), "null", False),
    "a file": (("file://",), "file://", True),
    "a file with a slash": (("file://",), "file:///", True),
    "an extension": (("chrome-extension://abcdef",), "chrome-extension://abcdef", True),
    "any": (("*",), EVIL, True),
    "any, for null": (("*",), "null", True),
    "any, twice": (("*",), "", False),
}


@pytest.mark.parametrize(("origins", "origin", "passes"), NAMED.values(), ids=NAMED)
def test_named_origins_pass_and_are_not_local(
    origins: tuple[str, ...], origin: str, passes: bool
) -> None:
    """They are told so, and may do nothing without a secret."""
    verdict = judge([("Origin", origin)], settings={"origins": origins})
    assert shown(verdict) == ("remote" if passes else FOREIGN)
    assert verdict.is_named == passes


@pytest.mark.parametrize("site", ["cross-site", "same-site", "Cross-Site"])
def test_a_page_that_hides_its_origin_is_foreign(site: str) -> None:
    """Images, scripts and forms by GET send none; what follows a link may read."""
    assert shown(judge([("Sec-Fetch-Site", site)])) == FOREIGN
    assert shown(judge([("Sec-Fetch-Site", site), ("Sec-Fetch-Mode", "no-cors")])) == FOREIGN
    assert not judge([("Sec-Fetch-Site", site)]).follows_link
    # Two values: one of them says it.
    assert shown(judge([("Sec-Fetch-Site", "none"), ("Sec-Fetch-Site", site)])) == FOREIGN
    # Where all may call it is still no local program.
    assert shown(judge([("Sec-Fetch-Site", site)], settings={"origins": ("*",)})) == "remote"
    named = {"origins": ("https://app.example",)}
    assert shown(judge([("Sec-Fetch-Site", site)], settings=named)) == FOREIGN


@pytest.mark.parametrize("site", ["none", "same-origin", "", "garbage"])
def test_other_words_of_sec_fetch_are_not_judged(site: str) -> None:
    """A typed address, a page of the hub's own, and what nobody knows."""
    headers = [("Sec-Fetch-Site", site), ("Sec-Fetch-Mode", "cors"), ("Sec-Fetch-Dest", "image")]
    assert shown(judge(headers)) == "local"
    assert shown(judge([("Sec-Fetch-Mode", "no-cors"), ("Sec-Fetch-User", "?1")])) == "local"


def test_links_are_followed_by_get_alone() -> None:
    """And without an origin; where to, the paths decide."""
    assert judge(NAVIGATES).follows_link
    assert not judge(NAVIGATES, method="POST").follows_link
    assert not judge(NAVIGATES, method="HEAD").follows_link
    assert not judge(NAVIGATES, kind="websocket").follows_link
    assert not judge([*NAVIGATES, ("Sec-Fetch-Mode", "no-cors")]).follows_link
    assert not judge([*NAVIGATES, ("Origin", EVIL)]).follows_link
    assert shown(judge([*NAVIGATES, ("Origin", OWN)])) == "local"


# Behind a proxy

PROXIES: Final = ("127.0.0.1", "10.0.0.0/8", "2001:db8::/32")

FORWARDED: Final[dict[str, tuple[Headers, str | None]]] = {
    "one": ([("X-Forwarded-For", "192.0.2.1")], "192.0.2.1"),
    "with a port": ([("X-Forwarded-For", "192.0.2.1:4711")], "192.0.2.1"),
    "IPv6 with a port": ([("X-Forwarded-For", "[2001:db9::1]:4711")], "2001:db9::1"),
    "IPv4 in IPv6": ([("X-Forwarded-For", "::ffff:192.0.2.1")], "192.0.2.1"),
    "what a client made up": ([("X-Forwarded-For", "127.0.0.1, 192.0.2.1")], "192.0.2.1"),
    "over two proxies": ([("X-Forwarded-For", "198.51.100.1, 192.0.2.1, 10.1.2.3")], "192.0.2.1"),
    "in two headers": (
        [("X-Forwarded-For", "198.51.100.1"), ("X-Forwarded-For", "192.0.2.1")], "192.0.2.1",
    ),
    "proxies alone": ([("X-Forwarded-For", "10.0.0.1, 10.0.0.2")], "10.0.0.1"),
    "loopback": ([("X-Forwarded-For", "127.0.0.1")], "127.0.0.1"),
    "nothing": ([("X-Forwarded-For", "")], None),
    "garbage": ([("X-Forwarded-For", "192.0.2.1, unknown")], None),
    "garbage before a proxy": ([("X-Forwarded-For", "192.0.2.1, _x, 10.0.0.9")], "10.0.0.9"),
    "Forwarded": ([("Forwarded", 'for="[2001:db9::1]:80";proto=https')], "2001:db9::1"),
    "Forwarded, twice": ([("Forwarded", "for=198.51.100.1, For=192.0.2.1")], "192.0.2.1"),
    "Forwarded and made up": (
        [("Forwarded", "for=198.51.100.1"), ("X-Forwarded-For", "192.0.2.1")], "192.0.2.1",
    ),
    "quotes that a client left open": (
        [("Forwarded", 'for=198.51.100.1;x=", for=192.0.2.1')], None,
    ),
    "quotes left open in a header before": (
        [("Forwarded", 'for=198.51.100.1;x="'), ("Forwarded", "for=192.0.2.1")], "192.0.2.1",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("headers", "client"), FORWARDED.values(), ids=FORWARDED)
def test_a_trusted_proxy_names_the_client(headers: Headers, client: str | None) -> None:
    """The rightmost address that is no proxy; never a local one."""
    verdict = judge(headers, settings={"trusted_proxies": PROXIES})
    assert verdict.forwarded is not None
    assert verdict.forwarded.client == client
    assert shown(verdict) == "remote"
    stranger = judge(headers, peer="203.0.113.9", settings={"trusted_proxies": PROXIES})
    assert stranger.forwarded is None


def test_a_trusted_proxy_that_says_nothing_is_not_local() -> None:
    """It forwards without headers: who calls is not known."""
    assert shown(judge([], settings={"trusted_proxies": ("127.0.0.1",)})) == "remote"
    assert shown(judge([], settings={"trusted_proxies": ("192.0.2.1",)})) == "local"


def test_a_trusted_proxy_names_the_host() -> None:
    """Its word on the host decides which origin is own; a stranger's does not."""
    told = [("X-Forwarded-Host", "hub.example"), ("X-Forwarded-Proto", "https")]
    page = [*told, ("Origin", "https://hub.example")]
    settings = {"trusted_proxies": ("127.0.0.1",)}
    verdict = judge(page, settings=settings)
    assert shown(verdict) == "remote"
    assert verdict.forwarded is not None
    assert (verdict.forwarded.host, verdict.forwarded.scheme) == ("hub.example", "https")
    assert shown(judge(page)) == FOREIGN
    assert shown(judge([*told, ("Origin", EVIL)], settings=settings)) == FOREIGN
    odd = [("X-Forwarded-Host", "a b"), ("X-Forwarded-Proto", "gopher")]
    odder = judge(odd, settings=settings).forwarded
    assert odder is not None
    assert (odder.host, odder.scheme) == (None, None)


# Whatever is sent

TEXTS: Final = st.sampled_from(
    [HOST, "localhost", "evil.example", "127.0.0.1", "[::1]", OWN, EVIL, "null", "file://", "*",
     "https://app.example", "for=127.0.0.1", "cross-site", "same-origin", "navigate", ""]
) | st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0"), max_size=40)  # fmt: skip
HEADER: Final = st.tuples(
    st.sampled_from(
        ["Host", "Origin", "Sec-Fetch-Site", "Sec-Fetch-Mode", "Forwarded", "X-Forwarded-For",
         "X-Forwarded-Host", "X-Real-IP", "Via", "Accept", "X-Forwarded-Port"]
    ),
    TEXTS,
)  # fmt: skip
SETTINGS: Final = st.fixed_dictionaries(
    {
        "origins": st.sampled_from([(), ("*",), ("null", "https://app.example"), (EVIL,)]),
        "hosts": st.sampled_from([(), ("evil.example",)]),
        "public_url": st.sampled_from(["", "https://hub.example.org", "http://localhost"]),
        "trusted_proxies": st.sampled_from([(), ("127.0.0.1",), ("0.0.0.0/0",)]),
    }
)
FOREIGNERS: Final = st.sampled_from(
    [EVIL, "null", "file://", "http://evil.example:17680", "http://127.0.0.1:17680@evil.example",
     "http://127.0.0.1:17681", "http://localhost:3000", "https://app.example"]
)  # fmt: skip


@given(
    origin=FOREIGNERS,
    headers=st.lists(HEADER, max_size=8),
    settings=SETTINGS,
    loopback=st.booleans(),
    kind=st.sampled_from(["http", "websocket"]),
    peer=st.sampled_from(["127.0.0.1", "::1", "192.0.2.1"]),
)
def test_no_page_of_another_origin_is_ever_local(
    origin: str, headers: Headers, settings: dict[str, Any], loopback: bool, kind: str, peer: str
) -> None:
    """Whatever else it sends, and whatever is set."""
    hosts = [value for name, value in headers if name == "Host"] + [HOST]
    own = any(origin.partition("://")[2].lower() == host.lower() for host in hosts)
    verdict = RequestTrust(HubSettings(**settings), loopback=loopback).judge(
        request([*headers, ("Origin", origin)], kind=kind, peer=peer)
    )
    assert own or not verdict.local
    allowed = verdict.is_named or verdict.refusal is not None
    if not own and not settings["public_url"] and not settings["trusted_proxies"]:
        assert allowed, "it was neither named nor refused"


@given(headers=st.lists(HEADER, max_size=8), settings=SETTINGS, loopback=st.booleans())
def test_what_is_local_has_nothing_against_it(
    headers: Headers, settings: dict[str, Any], loopback: bool
) -> None:
    """Read from the other side: of what is local all conditions hold, and it is not refused."""
    scope = request(headers)
    verdict = RequestTrust(HubSettings(**settings), loopback=loopback).judge(scope)
    if not verdict.local:
        return
    sent = [name for name, _ in headers]
    assert loopback
    assert verdict.refusal is None or verdict.follows_link
    assert not set(sent) & {"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP", "Via"}
    assert "Host" not in sent
    assert sent.count("Origin") <= 1
    assert all(value.lower() == OWN for name, value in headers if name == "Origin")
    assert settings["public_url"] in ("", "http://localhost")
    assert not settings["trusted_proxies"]


def test_a_scope_that_nobody_judged_is_not_local() -> None:
    """Such as one that a plugin made."""
    assert not is_local(request([]))


def test_an_empty_list_names_nobody() -> None:
    """And what cannot be read is in no list."""
    assert not names((), b"https://app.example")
    assert not names(("*",), None)
    assert names(("https://app.example",), b"https://APP.example")
