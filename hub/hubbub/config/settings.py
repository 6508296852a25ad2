"""What every table of hub.toml has in common."""

from __future__ import annotations

from types import NoneType
from typing import get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic.fields import FieldInfo

from hubbub.config.units import Address

__all__ = ["AdapterSettings", "Settings"]


class Settings(BaseModel):
    """One table of hub.toml; unknown keys are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_boolean_for_a_number(cls, value: object, info: ValidationInfo) -> object:
        """Refuse `port = true`, which pydantic reads as 1."""
        if isinstance(value, bool) and _is_number(cls.model_fields[info.field_name or ""]):
            raise ValueError("should be a number, not true or false")
        return value


def _is_number(field: FieldInfo) -> bool:
    """Tell whether a field is an int or a float, or may also be None."""
    kinds: set[object] = {*get_args(field.annotation)} or {field.annotation}
    return kinds <= {int, float, NoneType}


class AdapterSettings(Settings):
    """What every `[adapters.<name>]` table has; an adapter's own model adds to it."""

    enabled: bool = Field(default=False, description="Whether the hub starts this adapter.")
    listen: tuple[Address, ...] = Field(
        default=(),
        description="More addresses that serve this adapter alone, beside the hub's one port; "
        "port 0 takes any free one.",
    )
    required: bool = Field(
        default=False, description="Whether the hub is not ready while this adapter is down."
    )
