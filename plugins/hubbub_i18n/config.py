"""The table `[plugins.i18n]` of hub.toml."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from hubbub.config import Settings
from hubbub_i18n.locales import canonical

__all__ = ["I18nSettings"]


class I18nSettings(Settings):
    """Where texts come from, and which language holds where nobody says."""

    default_locale: Annotated[str, AfterValidator(canonical)] = Field(
        default="zh-CN",
        description="Language of who names none, and the last one looked into for a text.",
    )
    folder: str = Field(
        default="",
        description="Folder of more catalogues, `<locale>.toml`, which hold before those that come "
        "with the hub; none when empty.",
    )
