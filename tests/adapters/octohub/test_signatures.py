"""Both signatures, their windows, and that none is worth anything twice."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub.errors import RateLimitedError
from hubbub_octohub.config import SHIPPED_API_KEY, SHIPPED_WS_KEY
from hubbub_octohub.signatures import (
    Addresses,
    FlapGuard,
    Nonces,
    SignatureError,
    address_signature,
    check_address,
    check_request,
    derived_key,
    request_signature,
    signed_text,
)

API_KEY = SHIPPED_API_KEY.encode()
WS_KEY = SHIPPED_WS_KEY.encode()
NODE = "node_00112233aabbccdd"
NOW = 1_700_000_000
WINDOW = 300.0

# Vectors: OctoHub protocol page, 1.2 and 2.1.
REQUESTS: dict[str, tuple[list[tuple[str, str]], str, str]] = {
    "with an id": (
        [("pc_id", NODE)],
        f"GET&/node/ws&pc_id={NODE}&1700000000&1700000000999",
        "TyWt7lqEXVCiZblFR9ktybt/CsMEJGyGTvvhnrqhK7M=",
    ),
    "without parameters": (
        [],
        "GET&/node/ws&&1700000000&1700000000999",
        "fdtK+VTkHHNSSDsJUn9Mc3peztlpNW8v/mdfVKtvePM=",
    ),
}
ADDRESSES = {
    NODE: "47242b8f5a1311c4348cd8f21d463232146fd26f123caf45c8cda27ab1c4b57c",
    "42": "5015322127c0c2e4951dd215e386d073981d17e09b55ef0dfb1452254a8e07f2",
}

EDGES = [(-301, False), (-300, True), (300, True), (301, False)]
IDS = st.text(min_size=1, max_size=20)


def asked(said: str, *, now_s: float = NOW, **changes: Any) -> None:
    """Check a request for the address of `NODE`."""
    given_: dict[str, Any] = {
        "method": "GET",
        "paths": ("/node/ws",),
        "params": [("pc_id", NODE)],
        "timestamp": str(NOW),
        "nonce": "1700000000999",
        "signature": said,
        **changes,
    }
    check_request(API_KEY, now_s=now_s, window_s=WINDOW, **given_)


@pytest.mark.parametrize(("params", "text", "signature"), REQUESTS.values(), ids=REQUESTS)
def test_vectors_of_requests(params: list[tuple[str, str]], text: str, signature: str) -> None:
    """What the original's node signs."""
    signed = signed_text("get", "/node/ws", params, "1700000000", "1700000000999")
    assert signed == text
    assert request_signature(API_KEY, signed) == signature


@pytest.mark.parametrize(("identity", "signature"), ADDRESSES.items())
def test_vectors_of_addresses(identity: str, signature: str) -> None:
    """What the original's server signs."""
    assert address_signature(WS_KEY, identity, NOW) == signature
    said = {"identity": identity, "timestamp": str(NOW), "signature": signature}
    assert check_address(WS_KEY, now_s=NOW, window_s=WINDOW, **said) == NOW


def test_parameters_are_sorted_and_the_first_of_a_name_counts() -> None:
    """Code points decide, not letters: `Z` stands before `a`."""
    params = [("a", "1"), ("Z", "2"), ("a", "3"), ("ä", "")]
    assert signed_text("GET", "/p", params, "1", "2") == "GET&/p&Z=2&a=1&ä=&1&2"


@pytest.mark.parametrize("name", ["timestamp", "nonce", "signature"])
def test_each_header_is_needed(name: str) -> None:
    """One that is empty is as good as none."""
    asked(REQUESTS["with an id"][2])
    empty: dict[str, Any] = {name: ""}
    with pytest.raises(SignatureError):
        asked(REQUESTS["with an id"][2], **empty)


def test_the_path_before_a_proxy_counts_too() -> None:
    """A node signs the path it knows; a proxy in front may have put a prefix before it."""
    asked(REQUESTS["with an id"][2], paths=("/api/node/ws", "/node/ws"))
    with pytest.raises(SignatureError):
        asked(REQUESTS["with an id"][2], paths=("/api/node/ws",))


@pytest.mark.parametrize(("off_s", "good"), EDGES)
def test_the_window_of_a_request_has_two_sides(off_s: int, good: bool) -> None:
    """Five minutes, both included."""
    try:
        asked(REQUESTS["with an id"][2], now_s=NOW + off_s)
    except SignatureError:
        assert not good
    else:
        assert good


@pytest.mark.parametrize("timestamp", ["1e9", "-1", "17.5", "١٧", " 1700000000", "9" * 13])
def test_a_time_that_is_no_number_is_refused(timestamp: str) -> None:
    """Also where the signature over it is right."""
    text = signed_text("GET", "/node/ws", [("pc_id", NODE)], timestamp, "n")
    signature = request_signature(API_KEY, text)
    with pytest.raises(SignatureError):
        asked(signature, timestamp=timestamp, nonce="n", now_s=17)


@pytest.mark.parametrize(("off_s", "good"), EDGES)
def test_the_window_of_an_address_has_two_sides(off_s: int, good: bool) -> None:
    """The original takes an address of the future for ever."""
    said = {"identity": "42", "timestamp": str(NOW), "signature": ADDRESSES["42"]}
    try:
        check_address(WS_KEY, now_s=NOW + off_s, window_s=WINDOW, **said)
    except SignatureError:
        assert not good
    else:
        assert good


def test_a_digit_cannot_move_from_the_time_to_the_id() -> None:
    """`n1` at 1700000000 and `n` at 11700000000 are signed alike; only one of them is good."""
    signature = address_signature(WS_KEY, "n1", NOW)
    assert signature == address_signature(WS_KEY, "n", 11_700_000_000)
    said = {"identity": "n", "timestamp": "11700000000", "signature": signature}
    with pytest.raises(SignatureError):
        check_address(WS_KEY, now_s=11_700_000_000, window_s=WINDOW, **said)


def test_split_keys_differ() -> None:
    """A user whose id looks like a node's cannot come in as one."""
    node, user = (derived_key(WS_KEY, kind, split=True) for kind in ("node", "user"))
    assert len({node, user, WS_KEY}) == 3
    assert derived_key(WS_KEY, "node", split=False) == WS_KEY


@given(identity=IDS, other=IDS, time_s=st.integers(10**9, 10**10 - 1), off_s=st.integers(-400, 400))
def test_an_address_is_good_for_its_id_and_its_time_only(
    identity: str, other: str, time_s: int, off_s: int
) -> None:
    """Whatever the id; the window decides."""
    signature = address_signature(WS_KEY, identity, time_s)
    for name in (identity, other):
        try:
            check_address(
                WS_KEY, identity=name, timestamp=str(time_s), signature=signature,
                now_s=time_s + off_s, window_s=WINDOW,
            )  # fmt: skip
        except SignatureError:
            assert name != identity or abs(off_s) > WINDOW
        else:
            assert name == identity
            assert abs(off_s) <= WINDOW


@given(st.text(), st.text(), st.text(), st.text())
def test_whatever_is_said_is_refused_not_crashed(
    identity: str, timestamp: str, nonce: str, signature: str
) -> None:
    """Also half surrogate pairs and digits of other scripts."""
    with pytest.raises(SignatureError):
        asked(signature, timestamp=timestamp, nonce=nonce, params=[("pc_id", identity)])
    with pytest.raises(SignatureError):
        check_address(
            WS_KEY, identity=identity, timestamp=timestamp, signature=signature,
            now_s=NOW, window_s=WINDOW,
        )  # fmt: skip


def test_a_nonce_is_used_once() -> None:
    """By one id, for twice the window; another id may have the same."""
    nonces = Nonces(WINDOW)
    nonces.use("a", "bc", now_s=0)
    nonces.use("ab", "c", now_s=0)
    with pytest.raises(SignatureError):
        nonces.use("a", "bc", now_s=600)
    nonces.use("a", "bc", now_s=600.1)
    assert len(nonces) == 1


def test_nonces_are_bounded() -> None:
    """The oldest is forgotten, the others are not."""
    nonces = Nonces(WINDOW, limit=2)
    for nonce in ("1", "2", "3"):
        nonces.use("n", nonce, now_s=0)
    assert len(nonces) == 2
    nonces.use("n", "1", now_s=0)
    with pytest.raises(SignatureError):
        nonces.use("n", "3", now_s=0)


def test_an_address_is_used_once() -> None:
    """One that was signed elsewhere may be used again: nobody here knows of it."""
    addresses = Addresses(WINDOW)
    time_s = addresses.give("node", "n", now_s=NOW + 0.7)
    assert time_s == NOW
    addresses.use("node", "n", time_s, now_s=NOW + 1)
    with pytest.raises(SignatureError):
        addresses.use("node", "n", time_s, now_s=NOW + 2)
    for _ in range(2):
        addresses.use("user", "n", time_s, now_s=NOW + 2)
        addresses.use("node", "n", time_s + 1, now_s=NOW + 2)


def test_an_id_gets_no_second_twice() -> None:
    """The next free one, up to the end of the window; then it has to wait."""
    addresses = Addresses(WINDOW)
    given_ = [addresses.give("node", "n", now_s=NOW) for _ in range(301)]
    assert given_ == list(range(NOW, NOW + 301))
    with pytest.raises(RateLimitedError):
        addresses.give("node", "n", now_s=NOW)
    assert addresses.give("node", "other", now_s=NOW) == NOW
    assert addresses.give("node", "n", now_s=NOW + 1) == NOW + 301


@given(st.lists(st.floats(0, 5), max_size=30))
def test_addresses_given_are_good_and_distinct(pauses_s: list[float]) -> None:
    """However fast somebody asks."""
    addresses, now_s, seen = Addresses(WINDOW), float(NOW), set[int]()
    for pause_s in pauses_s:
        now_s += pause_s
        time_s = addresses.give("node", "n", now_s=now_s)
        assert time_s not in seen
        assert abs(time_s - now_s) <= WINDOW
        seen.add(time_s)


def test_the_fourth_take_over_in_a_minute_is_one_too_many() -> None:
    """And for a minute the id gets no address; another id does."""
    guard = FlapGuard(3, 60)
    for now_s in (0, 20, 40):
        guard.replaced("n", now_s=now_s)
    assert guard.seconds_left("n", now_s=40) == 0
    guard.replaced("n", now_s=60)
    assert guard.seconds_left("n", now_s=60) == 60
    assert guard.seconds_left("n", now_s=119) == 1
    assert guard.seconds_left("n", now_s=120) == 0
    assert guard.seconds_left("other", now_s=60) == 0


def test_slow_take_overs_are_no_flapping() -> None:
    """Four in more than a minute."""
    guard = FlapGuard(3, 60)
    for now_s in (0, 20, 40, 61):
        guard.replaced("n", now_s=now_s)
    assert guard.seconds_left("n", now_s=61) == 0
