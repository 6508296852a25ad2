"""Durations, sizes, addresses and secrets, at their edges."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from hubbub.config import Address, Secret, duration_text, size_text
from hubbub.config.units import MAX_DURATION_S, MAX_SIZE_BYTES, parse_duration, parse_size

SECRET: TypeAdapter[Secret] = TypeAdapter(Secret)

DURATIONS: dict[object, float] = {
    "30s": 30.0,
    "10m": 600.0,
    "1.5h": 5400.0,
    "500ms": 0.5,
    "7d": 604_800.0,
    "0s": 0.0,
    " 7 ms ": 0.007,
    "45": 45.0,
    45: 45.0,
    0.25: 0.25,
    "36500d": MAX_DURATION_S,
}
SIZES: dict[object, int] = {
    "1MiB": 1024**2,
    "64KiB": 65_536,
    "10MB": 10_000_000,
    "1.5KiB": 1536,
    "1 GiB": 1024**3,
    "2TiB": 2 * 1024**4,
    "5kB": 5000,
    "7b": 7,
    0: 0,
    1e6: 1_000_000,
    MAX_SIZE_BYTES: MAX_SIZE_BYTES,
}
NO_DURATIONS: list[object] = [
    "",
    "-1s",
    "10 parsec",
    "s",
    "1h30m",
    "1e3s",
    -1,
    -0.5,
    "nan",
    True,
    None,
    [],
    {},
]
NO_SIZES: list[object] = ["", "-1B", "1.5", 1.5, "1XB", "MiB", "0.3B", -1, True, None, float("inf")]
NO_ADDRESSES: list[object] = [
    "",
    "8008",
    ":8008",
    "host",
    "host:",
    "host:65536",
    "::1:80",
    "unix:/run/x",
    "a b:1",
    7,
]


@pytest.mark.parametrize(("written", "seconds"), DURATIONS.items(), ids=map(repr, DURATIONS))
def test_durations_are_seconds(written: object, seconds: float) -> None:
    """Each unit, and a bare number, gives seconds."""
    assert parse_duration(written) == seconds


@pytest.mark.parametrize("written", [*NO_DURATIONS, float("inf"), float("nan")], ids=repr)
def test_no_duration_is_refused_with_an_example(written: object) -> None:
    """The message shows how to write one."""
    with pytest.raises(ValueError, match='"30s"'):
        parse_duration(written)


def test_longest_duration_is_36500_days() -> None:
    """One second more than the limit is refused."""
    with pytest.raises(ValueError, match="the limit is 36500d"):
        parse_duration(MAX_DURATION_S + 1)


@pytest.mark.parametrize(("written", "size"), SIZES.items(), ids=map(repr, SIZES))
def test_sizes_are_bytes(written: object, size: int) -> None:
    """Each unit, and a bare number, gives whole bytes."""
    assert parse_size(written) == size


@pytest.mark.parametrize("written", NO_SIZES, ids=repr)
def test_no_size_is_refused_with_an_example(written: object) -> None:
    """The message shows how to write one."""
    with pytest.raises(ValueError, match='"1MiB"'):
        parse_size(written)


def test_largest_size_fits_a_database_column() -> None:
    """One byte more than the limit is refused."""
    with pytest.raises(ValueError, match="too large"):
        parse_size(MAX_SIZE_BYTES + 1)


@given(st.floats(0, MAX_DURATION_S))
def test_durations_survive_writing_and_reading(seconds: float) -> None:
    """What is written is read as the same number."""
    assert parse_duration(duration_text(seconds)) == seconds


@given(st.integers(0, MAX_SIZE_BYTES))
def test_sizes_survive_writing_and_reading(size: int) -> None:
    """What is written is read as the same number."""
    assert parse_size(size_text(size)) == size


@given(st.text() | st.from_regex(r"\d+(\.\d+)?[a-z]+", fullmatch=True))
def test_any_text_is_a_value_or_a_value_error(text: str) -> None:
    """No text makes a parser fail in another way."""
    for parse in (parse_duration, parse_size, Address.parse):
        with suppress(ValueError):
            assert parse(text) is not None


@pytest.mark.parametrize(
    ("written", "address"),
    [
        ("127.0.0.1:8008", Address("127.0.0.1", 8008)),
        ("[::1]:80", Address("::1", 80)),
        ("localhost:0", Address("localhost", 0)),
        ("0.0.0.0:65535", Address("0.0.0.0", 65535)),
    ],
)
def test_addresses_are_host_and_port(written: str, address: Address) -> None:
    """They are written as they are read."""
    assert Address.parse(written) == address
    assert str(address) == written
    assert Address.parse(address) is address


@pytest.mark.parametrize("written", NO_ADDRESSES, ids=repr)
def test_no_address_is_refused_with_an_example(written: object) -> None:
    """The message shows how to write one."""
    with pytest.raises(ValueError, match=r'"127\.0\.0\.1:8008"'):
        Address.parse(written)


def test_secret_shows_itself_to_reveal_only() -> None:
    """Nothing that prints or dumps a secret shows it."""
    secret = Secret("hunter2")
    shown = (
        f"{secret} {secret!r} {[secret]} {SECRET.dump_json(secret)!r} {SECRET.dump_python(secret)}"
    )
    assert "hunter2" not in shown
    assert secret.reveal() == "hunter2"


def test_secrets_are_compared_by_value() -> None:
    """Equal values are equal secrets; text is no secret; the empty one is false."""
    assert Secret("ä") == Secret("ä") != Secret("b")
    assert len({Secret("a"), Secret("a")}) == 1
    assert Secret("a") != "a"
    assert not Secret("")


def test_secret_file_loses_its_last_newline(tmp_path: Path) -> None:
    """The path is relative to the folder in the context; blanks inside stay."""
    (tmp_path / "key").write_bytes(b" a b \r\n")
    secret = SECRET.validate_python({"file": "key"}, context={"folder": tmp_path})
    assert secret.reveal() == " a b "


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"file": "none"}, "cannot read the secret file .*none: No such file"),
        ({"file": "empty"}, "secret file .*empty is empty"),
        ({"file": "binary"}, "secret file .*binary is not UTF-8"),
        ({"file": "key", "mode": 1}, "should be a string"),
        (12, "should be a string"),
    ],
)
def test_bad_secret_is_refused_with_its_path(tmp_path: Path, given: Any, complaint: str) -> None:
    """A missing, empty or binary file is named."""
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff\x00")
    with pytest.raises(ValidationError, match=complaint):
        SECRET.validate_python(given, context={"folder": tmp_path})
