"""What a plugin may implement. All hooks are optional; pluggy finds them by `hookimpl`."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import pluggy

from hubbub.conversion import Converter
from hubbub.envelope import Envelope
from hubbub.ports import Adapter, HubApi
from hubbub.transforms import Transform
from hubbub.values import Delivery, Route

if TYPE_CHECKING:
    from sqlmodel import SQLModel
    from starlette.routing import BaseRoute
    from typer import Typer

__all__ = ["PROJECT", "Hooks", "hookimpl"]

PROJECT: Final = "hubbub"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class Hooks:
    """Every hook of the hub."""

    @hookspec
    def adapters(self) -> Sequence[Adapter]:  # type: ignore[empty-body]
        """Give adapters, each a protocol.

        Args:
            None.

        Returns:
            Adapters; each is configured by `[adapters.<name>]` and started if that says enabled.

        Order: as plugins are loaded; of two with one name the second is refused.
        Errors: the plugin is `failed`, and named in `/api/v1/plugins`.
        Since: 0.1
        """

    @hookspec
    def routes(self) -> Sequence[Route]:  # type: ignore[empty-body]
        """Give routes that stand in the table while the plugin is up.

        Args:
            None.

        Returns:
            Routes; they come after those of hub.toml and the API.

        Order: as plugins are loaded.
        Errors: a route that is not valid makes the plugin `failed`.
        Since: 0.1
        """

    @hookspec
    def converters(self) -> Sequence[Converter]:  # type: ignore[empty-body]
        """Give converters from one envelope type to another.

        Args:
            None.

        Returns:
            Converters; the router takes the shortest chain.

        Order: of two chains of one length, the one registered first.
        Errors: an exception fails the attempt, is counted and logged.
        Since: 0.1
        """

    @hookspec
    def transforms(self) -> Sequence[Transform]:  # type: ignore[empty-body]
        """Give kinds of transforms that routes may name, as `transform = "kind:argument"`.

        Args:
            None.

        Returns:
            Transforms; `make` is called with the argument when a route is put in, and what it
            gives with each envelope that takes the route, at each attempt. None is `filtered`,
            `Reject` ends the delivery as dead. `id`, `source`, `time_us`, `traceparent` and
            `hops` stay as they are whatever is returned.

        Order: of two plugins with one kind the second is `failed`.
        Errors: what `make` raises refuses the route; what its function raises fails the attempt,
            is counted and logged.
        Since: 0.1
        """

    @hookspec
    def before_route(self, envelope: Envelope) -> Envelope | None:
        """Change or observe an envelope before the routing table is read.

        Args:
            envelope: Immutable; use `envelope.replace(...)`. `id`, `source`, `time_us` and
                `traceparent` stay as they are whatever is returned.

        Returns:
            A new envelope to go on with, or None to leave it as it is.

        Order: `hub.plugins`, then as loaded; `tryfirst` and `trylast` are honoured.
        Errors: counted in `hubbub_plugin_errors_total{plugin,hook}` and logged; the envelope
            goes on unchanged. Three in a row switch the plugin off.
        Since: 0.1
        """

    @hookspec
    def after_delivery(self, delivery: Delivery) -> None:
        """Look at a delivery that has ended.

        That of a task when its end is in the store; a plain one at once.

        Args:
            delivery: With its outcome; not to be changed.

        Returns:
            Nothing.

        Order: as `before_route`.
        Errors: as `before_route`.
        Since: 0.1
        """

    @hookspec
    def translate(self, key: str, args: Mapping[str, object], locale: str) -> str | None:
        """Say a text of the hub in a language.

        Args:
            key: Name of the text, such as `kenko.pause.overload`.
            args: Values for its placeholders.
            locale: The language, BCP 47, such as `zh-CN`.

        Returns:
            The text, or None when this plugin does not have it.

        Order: as `before_route`; the first that has it.
        Errors: as `before_route`; the next plugin is asked.
        Since: 0.1
        """

    @hookspec
    def http_routes(self) -> Sequence[BaseRoute]:  # type: ignore[empty-body]
        """Give Starlette routes on the one port.

        Args:
            None.

        Returns:
            Routes; of two that claim one path the second plugin is refused by name.

        Order: as plugins are loaded.
        Errors: the plugin is `failed`.
        Since: 0.1
        """

    @hookspec
    def cli_commands(self, app: Typer) -> None:
        """Add commands to `hubbub`.

        Args:
            app: The root Typer application.

        Returns:
            Nothing.

        Order: as plugins are loaded.
        Errors: reported on standard error; the other commands stay.
        Since: 0.1
        """

    @hookspec
    def console_panels(self) -> Sequence[object]:  # type: ignore[empty-body]
        """Give panels for the web console. There is none yet: nobody asks.

        Args:
            None.

        Returns:
            Panels; what they are is said when the console comes.

        Order: as plugins are loaded.
        Errors: none now.
        Since: 0.1
        """

    @hookspec
    def tables(self) -> Sequence[type[SQLModel]]:  # type: ignore[empty-body]
        """Give SQLModel tables of the plugin's own, made at start where they are missing.

        Args:
            None.

        Returns:
            Table models; their names begin with the plugin's name and an underscore.

        Order: as plugins are loaded.
        Errors: the plugin is `failed`.
        Since: 0.1
        """

    @hookspec
    def startup(self, hub: HubApi) -> Awaitable[None] | None:
        """Begin, before adapters start.

        Args:
            hub: The hub; keep it for `publish` and `attach`.

        Returns:
            Nothing; may be a coroutine, which is awaited.

        Order: as plugins are loaded.
        Errors: the plugin is `failed`.
        Since: 0.1
        """

    @hookspec
    def shutdown(self, hub: HubApi) -> Awaitable[None] | None:
        """End, after adapters have stopped.

        Args:
            hub: The hub.

        Returns:
            Nothing; may be a coroutine, which is awaited, up to a deadline.

        Order: the reverse of `startup`.
        Errors: counted and logged.
        Since: 0.1
        """
