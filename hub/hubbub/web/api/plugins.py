"""Plugins: shown, switched on and off."""

from __future__ import annotations

from typing import Final

import msgspec

from hubbub.plugins import Plugin, PluginState
from hubbub.switching import disable, enable, plugin_named
from hubbub.web import pages
from hubbub.web.calls import Call, Operation, Reply, Spec

__all__ = ["OPERATIONS"]

PATH: Final = "/api/v1/plugins"


class PluginView(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A plugin that was found."""

    name: str
    distribution: str | None
    version: str | None
    bundled: bool
    state: PluginState
    reason: str | None


class PluginList(msgspec.Struct, forbid_unknown_fields=True):
    """Plugins that were found."""

    items: list[PluginView]
    next: str | None


def plugin_view(plugin: Plugin) -> PluginView:
    """Return a plugin as the API shows it."""
    return PluginView(
        name=plugin.name,
        distribution=plugin.distribution or None,
        version=plugin.version or None,
        bundled=plugin.bundled,
        state=plugin.state,
        reason=plugin.reason or None,
    )


async def listed(call: Call) -> Reply:
    """List plugins that were found, their state and why."""
    return pages.page([plugin_view(plugin) for plugin in call.core.plugins], None)


async def switch_on(call: Call) -> Reply:
    """Let a plugin work again, now and after a restart."""
    core = call.core
    plugin = plugin_named(core, call.params["name"])
    await enable(core, plugin)
    await core.audit(call.principal.name, "plugin.enable", plugin.name, plugin.state)
    return Reply(200, plugin_view(plugin))


async def switch_off(call: Call) -> Reply:
    """Let a plugin work no longer, now and after a restart."""
    core = call.core
    plugin = plugin_named(core, call.params["name"])
    await disable(core, plugin, by=call.principal.name)
    await core.audit(call.principal.name, "plugin.disable", plugin.name)
    return Reply(200, plugin_view(plugin))


OPERATIONS: Final = (
    Operation(
        "GET", PATH, listed, "Plugins and how they are", ("read",), Spec(answers={200: PluginList})
    ),
    Operation(
        "POST",
        PATH + "/{name}/enable",
        switch_on,
        "Let a plugin work again",
        spec=Spec(answers={200: PluginView}, problems=(404, 422)),
    ),
    Operation(
        "POST",
        PATH + "/{name}/disable",
        switch_off,
        "Let a plugin work no longer",
        spec=Spec(answers={200: PluginView}, problems=(404,)),
    ),
)
