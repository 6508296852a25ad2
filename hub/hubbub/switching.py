"""Plugins switched on and off by an administrator, while the hub runs and over a restart."""

from __future__ import annotations

from hubbub.core import Core
from hubbub.errors import ConfigError, NotFoundError
from hubbub.fence import Plugin
from hubbub.store.reads import plugins as states

__all__ = ["disable", "enable", "plugin_named"]


def plugin_named(core: Core, name: str) -> Plugin:
    """Return a plugin.

    Raises:
        NotFoundError: none of that name was found.
    """
    plugin = core.plugins.get(name)
    if plugin is None:
        raise NotFoundError(f"no plugin {name[:100]!r} was found; `hubbub plugin ls` shows all")
    return plugin


async def enable(core: Core, plugin: Plugin) -> None:
    """Let a plugin work again, now and after a restart; it may fail as at a start.

    Raises:
        ConfigError: its table in hub.toml is not valid; it stays off.
    """
    if _is_up(plugin):
        return
    await core.execute(states.forgetting(plugin.name))
    if not core.plugins.switch_on(plugin):
        return
    problems = core.contributions.read_adapters(core.config, only=plugin)
    if problems:
        core.plugins.fail(plugin, "; ".join(problems))
        raise ConfigError(problems)
    core.contributions.read_converters(only=plugin)
    core.contributions.read_transforms(only=plugin)
    core.make_tables(only=plugin)
    core.contributions.read_routes(only=plugin)
    core.router.before_route = core.plugins.before_route
    await core.plugins.startup(core.hub_for, only=plugin)
    if _is_up(plugin):
        for name in core.contributions.adapters_of(plugin):
            await core.extensions.start_adapter(name)
    await core.say_changed()


async def disable(core: Core, plugin: Plugin, *, by: str) -> None:
    """Let a plugin work no longer, now and after a restart: all it brought goes away."""
    if plugin.state == "disabled":
        return
    reason = f"disabled by {by}"
    core.plugins.switch_off(plugin, "disabled", reason)
    await core.extensions.ended()
    await core.execute(*core.extensions.remembering(plugin))


def _is_up(plugin: Plugin) -> bool:
    return plugin.state == "up"
