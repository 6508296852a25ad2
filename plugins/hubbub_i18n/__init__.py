"""Texts in many languages: the hub's own, and messages that come as a key with arguments."""

from __future__ import annotations

from hubbub_i18n.plugin import I18n

__all__ = ["plugin"]

plugin = I18n()
