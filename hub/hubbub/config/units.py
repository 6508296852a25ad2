"""Values of settings that have a unit or a secret: durations, sizes, addresses, secrets."""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple, cast

from pydantic import BeforeValidator, GetCoreSchemaHandler, ValidationInfo, WithJsonSchema
from pydantic_core import CoreSchema, core_schema

__all__ = [
    "MAX_DURATION_S",
    "MAX_SIZE_BYTES",
    "Address",
    "Duration",
    "Secret",
    "Size",
    "duration_text",
    "folder_of",
    "parse_duration",
    "parse_size",
    "read_secret",
    "size_text",
]

MAX_DURATION_S: Final = 36_500 * 86_400.0
"""Longest duration in seconds: 100 years, so that no sum of times overflows."""

MAX_SIZE_BYTES: Final = 2**63 - 1
"""Largest size in bytes: what a database column holds."""

_DURATION_UNITS: Final = {
    "ms": Decimal("0.001"),
    "s": Decimal(1),
    "m": Decimal(60),
    "h": Decimal(3600),
    "d": Decimal(86400),
}
_SIZE_UNITS: Final = {
    "b": Decimal(1),
    **{f"{letter}b": Decimal(1000**power) for power, letter in enumerate("kmgt", start=1)},
    **{f"{letter}ib": Decimal(1024**power) for power, letter in enumerate("kmgt", start=1)},
}
_AMOUNT: Final = re.compile(r"(\d{1,20}(?:\.\d{1,400})?)\s*([A-Za-z]*)", re.ASCII)
_ADDRESS: Final = re.compile(r"(?:\[([^\s\[\]]+)\]|([^\s:/\[\]]+)):(\d{1,5})", re.ASCII)
_MAX_PORT: Final = 65535


def parse_duration(value: object) -> float:
    """Return the seconds of `"30s"`, `"1.5h"`, `"500ms"`, `"7d"` or a bare number of seconds.

    Raises:
        ValueError: not a duration, negative, or over `MAX_DURATION_S`.
    """
    amount = _amount(value, _DURATION_UNITS)
    if amount is None:
        raise ValueError(
            f"{_shown(value)} is not a duration; write a number with ms, s, m, h or d, "
            'such as "30s" or "1.5h", or a bare number of seconds'
        )
    if amount > Decimal(MAX_DURATION_S):
        raise ValueError(
            f"{_shown(value)} is too long; the limit is {duration_text(MAX_DURATION_S)}"
        )
    return float(amount)


def parse_size(value: object) -> int:
    """Return the bytes of `"1MiB"`, `"64KiB"`, `"10MB"` or a bare number of bytes.

    Raises:
        ValueError: not a size, negative, not whole bytes, or over `MAX_SIZE_BYTES`.
    """
    amount = _amount(value, _SIZE_UNITS)
    if amount is None or amount != amount.to_integral_value():
        raise ValueError(
            f"{_shown(value)} is not a size; write a number with B, KiB, MiB, GiB, TiB, kB, MB, "
            'GB or TB, such as "1MiB", or a bare number of bytes'
        )
    if amount > MAX_SIZE_BYTES:
        raise ValueError(f"{_shown(value)} is too large; the limit is {MAX_SIZE_BYTES} bytes")
    return int(amount)


def _amount(value: object, units: Mapping[str, Decimal]) -> Decimal | None:
    match value:
        case bool():
            return None
        case int() | float():
            amount = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
            return amount if amount.is_finite() and amount >= 0 else None
        case str():
            found = _AMOUNT.fullmatch(value.strip())
            if found is None:
                return None
            unit = units.get(found[2].lower()) if found[2] else Decimal(1)
            return None if unit is None else Decimal(found[1]) * unit
        case _:
            return None


def _shown(value: object) -> str:
    return repr(value[:40] if isinstance(value, str) else value)


def duration_text(seconds: float) -> str:
    """Write seconds as `parse_duration` reads them, in the largest unit that divides them."""
    exact = Decimal(repr(float(seconds)))
    for unit in ("d", "h", "m", "s", "ms"):
        amount = exact / _DURATION_UNITS[unit]
        if amount == amount.to_integral_value() and (amount or unit == "s"):
            return f"{amount:.0f}{unit}"
    return f"{exact:f}s"


def size_text(size_bytes: int) -> str:
    """Write bytes as `parse_size` reads them, in the largest binary unit that divides them."""
    for power, unit in ((4, "TiB"), (3, "GiB"), (2, "MiB"), (1, "KiB")):
        if size_bytes and size_bytes % 1024**power == 0:
            return f"{size_bytes // 1024**power}{unit}"
    return f"{size_bytes}B"


Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    WithJsonSchema(
        {
            "anyOf": [{"type": "string"}, {"type": "number", "minimum": 0}],
            "description": "seconds, or a number with ms, s, m, h or d",
            "examples": ["30s"],
        }
    ),
]
"""Seconds, written `"30s"` or as a bare number."""

Size = Annotated[
    int,
    BeforeValidator(parse_size),
    WithJsonSchema(
        {
            "anyOf": [{"type": "string"}, {"type": "integer", "minimum": 0}],
            "description": "bytes, or a number with KiB, MiB, GiB, TiB, kB, MB, GB or TB",
            "examples": ["1MiB"],
        }
    ),
]
"""Bytes, written `"1MiB"` or as a bare number."""


class Address(NamedTuple):
    """Where a listener binds: `127.0.0.1:8008`, `[::1]:80`; port 0 is any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        """Write it as `parse` reads it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, value: object) -> Address:
        """Read `host:port`.

        Raises:
            ValueError: no host, no port, or a port over 65535.
        """
        if isinstance(value, Address):
            return value
        found = _ADDRESS.fullmatch(value.strip()) if isinstance(value, str) else None
        if found is None or int(found[3]) > _MAX_PORT:
            raise ValueError(
                f"{_shown(value)} is not an address; write host and port (0 to {_MAX_PORT}), "
                'such as "127.0.0.1:8008", "0.0.0.0:8008" or "[::1]:8008"'
            )
        return cls(found[1] or found[2], int(found[3]))

    @classmethod
    def __get_pydantic_core_schema__(
        cls, _source: object, _handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Let a settings model hold it."""
        return core_schema.no_info_plain_validator_function(
            cls.parse,
            json_schema_input_schema=core_schema.str_schema(),
            serialization=core_schema.to_string_ser_schema(),
        )


class Secret:
    """A key, password or token that shows itself only to `reveal`; false when it is empty."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the value; keep it out of messages and logs."""
        return self._value

    def __bool__(self) -> bool:
        """Tell whether there is one at all."""
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        """Compare in constant time."""
        return isinstance(other, Secret) and hmac.compare_digest(
            self._value.encode(), other._value.encode()
        )

    def __hash__(self) -> int:
        """Hash as its value."""
        return hash(self._value)

    def __repr__(self) -> str:
        """Show that it is one, and nothing of it."""
        return "Secret('***')"

    def __str__(self) -> str:
        """Show nothing of it."""
        return "***"

    @classmethod
    def _validate(cls, value: object, info: ValidationInfo) -> Secret:
        match value:
            case Secret():
                return value
            case str():
                return cls(value)
            case {"file": str(name)} if len(cast("dict[str, object]", value)) == 1:
                return cls(read_secret(folder_of(info) / name))
            case _:
                raise ValueError('should be a string, or a table { file = "path" }')

    @classmethod
    def __get_pydantic_core_schema__(
        cls, _source: object, _handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Let a settings model hold it; dumps show `***`."""
        return core_schema.with_info_plain_validator_function(
            cls._validate,
            json_schema_input_schema=core_schema.str_schema(),
            serialization=core_schema.to_string_ser_schema(),
        )


def folder_of(info: ValidationInfo) -> Path:
    """Return the folder of hub.toml, which files that it names are relative to."""
    context = cast("dict[str, Any] | None", info.context)
    match context:
        case {"folder": Path() as folder}:
            return folder
        case _:
            return Path()


def read_secret(path: Path) -> str:
    """Return what a file holds, without the newline at its end.

    Raises:
        ValueError: the file cannot be read, is no text, or is empty.
    """
    try:
        value = path.read_text(encoding="utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        raise ValueError(f"the secret file {path} is not UTF-8 text") from None
    except OSError as error:
        raise ValueError(f"cannot read the secret file {path}: {error.strerror}") from None
    if not value:
        raise ValueError(f"the secret file {path} is empty; write the secret into it")
    return value
