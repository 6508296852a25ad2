"""What a message can make slow takes time by its length, and no more of it than the loop can give.

Times are of this process's own work on the processor, with room for a slow machine: what is guarded
against takes seconds, hours or for ever.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import product
from typing import Any

import msgspec
import pytest

from hubbub import Envelope
from hubbub.conditions.operators import MAX_REGEX_WORK, MIN_REGEX_BYTES
from hubbub.conditions.where import compile_where
from hubbub.envelope import LARGE_BYTES, decode_json, decode_undisturbed
from hubbub.errors import InvalidError, MalformedError, SubjectError
from hubbub.intake import Limits, check_depth, check_envelope, has_nul
from hubbub.media import read_media_type
from hubbub.subjects import MAX_SUBJECT, escape, unescape
from hubbub_i18n.catalogues import MAX_FILLED, render
from hubbub_kenko.wire.inbound import decode as decode_kenko
from hubbub_octohub.wire.inbound import read_ask
from hubbub_relay.wire.values import members_of

MIB = 1024 * 1024

SLOW_S = 0.4
"""Several times what the slowest of them takes."""

PACKAGES = (
    "hubbub", "hubbub_files", "hubbub_i18n", "hubbub_kenko", "hubbub_node", "hubbub_octohub",
    "hubbub_relay", "hubbub_statistics", "hubbub_system",
)  # fmt: skip


def list_of(item: str, size: int = MIB) -> str:
    return "[" + (item + ",") * (size // (len(item) + 1) - 1) + "0]"


def cpu_s(work: Callable[[], object]) -> float:
    """Return the time that a call takes at best, whatever comes of it."""
    best = float("inf")
    for _ in range(2):
        began = time.process_time()
        with suppress(Exception):  # each refuses in its own way
            work()
        best = min(best, time.process_time() - began)
        if best < SLOW_S:
            break
    return best


DATA = {
    "numbers": list_of("1e300"),
    "long numbers": list_of("1.2345678901234567890123456789e-290"),
    "lists": list_of("[]"),
    "objects": list_of("{}"),
    "texts": list_of('""'),
    "a NUL": '["\\u0000",' + list_of("0")[1:],
    "open brackets": "[" * MIB,
    "closed brackets": "]" * MIB,
    "deep": list_of("[" * 60 + "]" * 60),
    "deeper": list_of("[" * 400 + "]" * 400),
    "a text without end": "[" * 65 + '"' + '\\"' * (MIB // 2),
    "a text": "[" * 30 + '"' + "\\n" * (MIB // 2) + '"' + "]" * 30,
}


@pytest.mark.parametrize("data", DATA.values(), ids=DATA)
def test_data_of_the_largest_size_is_read_in_time(data: str) -> None:
    """By the hub, which checks it, and by each adapter, whose frames it may come in."""
    envelope = Envelope(id="", source="api.t", subject="a.b", type="t", data=data.encode())
    assert cpu_s(lambda: check_envelope(envelope, Limits())) < SLOW_S
    frames = (
        f'{{"type":"message","data":{{"key":"k","args":{{"a":{data}}}}}}}',
        f'{{"type":"register","data":{data}}}',
        f'{{"type":"runner.result","data":{{"a":{data}}}}}',
    )
    for frame in frames:
        assert cpu_s(partial(decode_kenko, frame)) < SLOW_S
    for member in ("data", "task_id"):
        frame = f'{{"type":"ask","action":"x","{member}":{data}}}'
        assert cpu_s(partial(read_ask, frame)) < SLOW_S
    assert cpu_s(lambda: members_of(f'{{"data":{data}}}'.encode(), None)) < SLOW_S


@pytest.mark.parametrize("size", [LARGE_BYTES - 1, LARGE_BYTES])
def test_numbers_are_the_same_in_large_and_small_data(size: int) -> None:
    """Also those that are out of range, and what the garbage collector does afterwards."""
    text = "[1.5,-2e-9,1e300,12345678901234567890123,7]"
    assert decode_json(text.ljust(size)) == [1.5, -2e-9, 1e300, 12345678901234567890123, 7]
    with pytest.raises(msgspec.ValidationError, match="out of range"):
        decode_json("[1e999]".ljust(size))
    with pytest.raises(ZeroDivisionError):
        decode_undisturbed(lambda _: 1 // 0, text.ljust(size))
    envelope = Envelope(id="", source="s", subject="a.b", type="t", data=b"[1e999]".ljust(size))
    with pytest.raises(MalformedError, match="out of range"):
        check_envelope(envelope, Limits())


@pytest.mark.parametrize(
    ("text", "there"),
    [
        (r'"\u0000"', True), (r'"\\\u0000"', True), (r'"a\n\u0000"', True), (r'{"\u0000":1}', True),
        (r'"\\u0000"', False), (r'"\\\\u0000"', False), (r'"\u00000"', True), (r'"\u000a"', False),
    ],
)  # fmt: skip
def test_a_nul_is_found_without_decoding(text: str, there: bool) -> None:
    """As decoding finds it."""
    assert (
        "\0" in str(msgspec.json.decode(text)) or "\\x00" in repr(msgspec.json.decode(text))
    ) is (there)
    assert has_nul(text.encode()) is there


def test_brackets_in_texts_do_not_count() -> None:
    """Whatever stands before their quotes."""
    text = r'["\\", "\"", "[[[[[[[[", "\\\"{{{{{{", [[1]], ' + "[],{}," * 8 + "0]"
    check_depth(text.encode(), 3)
    with pytest.raises(MalformedError):
        check_depth(text.encode(), 2)


MEDIA_TYPES = {
    "blanks": "a/b" + ("; " * 127)[: 256 - 4] + '"',
    "many blanks": "a/b" + (";" + " " * 6) * 36 + "=",
    "parameters": "a/b" + ";a=b" * 63 + "=",
    "quoted": 'a/b;a="' + '\\"' * 120,
}


@pytest.mark.parametrize("text", MEDIA_TYPES.values(), ids=MEDIA_TYPES)
def test_a_media_type_that_is_none_is_refused_in_time(text: str) -> None:
    """Of 256 characters, all that it may have."""
    with pytest.raises(InvalidError):
        read_media_type(text)


def test_media_types_are_still_read() -> None:
    """With blanks wherever they may be."""
    for text in (
        "a/b ; ; charset=X ;",
        'a/b;p="q\\"; no";charset="x"',
        "a/b\t;charset=x  ",
    ):
        assert read_media_type(text) == ("a/b", "x")
    assert read_media_type("a/b;").charset is None


def patterns() -> Iterator[tuple[str, re.Pattern[Any]]]:
    """Give all expressions of all our modules."""
    for name in PACKAGES:
        for info in pkgutil.walk_packages(importlib.import_module(name).__path__, f"{name}."):
            if "migrations" in info.name or info.name.endswith("__main__"):
                continue
            for attribute, value in vars(importlib.import_module(info.name)).items():
                if isinstance(value, re.Pattern):
                    yield f"{info.name}.{attribute}", value


def test_no_regular_expression_tries_in_all_ways() -> None:
    """With what it may begin with, repeated, and an end that does not fit."""
    found = dict(patterns())
    assert len(found) > 40
    for name, pattern in found.items():
        source = str(pattern.pattern)
        signs = [sign for sign in sorted({*source, *'a1" ;=,.'}) if sign.isprintable()][:30]
        pumps = [*signs, *map("".join, product(signs, repeat=2)), "; ", ";  ", " ; "]
        for pump, head in product(pumps, ("", '"', "a/b")):
            for times in (8, 14, 20):  # what tries in all ways is over the limit before the last
                text = head + pump * times + "\0"
                subject = text if isinstance(pattern.pattern, str) else text.encode()
                began = time.process_time()
                pattern.fullmatch(subject)
                if time.process_time() - began > 0.02:
                    assert cpu_s(partial(pattern.fullmatch, subject)) < 0.02, (name, text)


def test_a_costly_expression_reads_no_long_text() -> None:
    """It does not hold then, and is counted; up to its limit it reads."""
    skipped: list[None] = []
    pattern = "(a|b)*a(a|b){200}x"
    holds = compile_where({"data": {"regex": pattern}}, too_costly=lambda: skipped.append(None))
    assert holds is not None
    assert cpu_s(lambda: holds(said("ab" * (MIB // 2)))) < SLOW_S
    assert len(skipped) == 1
    assert holds(said("a" * (MIN_REGEX_BYTES - 1) + "x"))
    assert len(skipped) == 1


def test_a_cheap_expression_reads_the_longest_text() -> None:
    """Most do."""
    holds = compile_where({"data": {"regex": r"error|warn: [A-Z]+\d$"}})
    assert holds is not None
    assert MAX_REGEX_WORK // 20 > MIB
    assert holds(said("a" * (MIB - 8) + "error"))


def said(text: str) -> Envelope:
    return Envelope.new(source="a.b", subject="a.b", data=text)


@pytest.mark.parametrize("over", [0, 1])
def test_no_token_is_made_of_what_is_too_long(over: int) -> None:
    """A subject could not have it."""
    text = "." * (MAX_SUBJECT + over)
    if over:
        with pytest.raises(SubjectError):
            escape(text)
        assert unescape("%2E" * len(text)) == "%2E" * len(text)
    else:
        assert unescape(escape(text)) == text


def test_a_text_is_filled_up_to_its_limit() -> None:
    """However often a template names what."""
    value = "x" * (MAX_FILLED // 2)
    assert render("{a}{a}{a}-{b}", {"a": value, "b": 1}) == value + value + "{a}-{b}"
    assert render("{b}{b}", {"b": [1]}) == "[1][1]"
    assert cpu_s(lambda: render("{a}" * 1000, {"a": [0] * 300_000})) < SLOW_S
