"""The hub as plugins and adapters see it: `ports.HubApi` over the rooms."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import insert
from sqlmodel import Session

from hubbub.addresses import Addresses
from hubbub.attachments import Attachment
from hubbub.config import Settings, is_loopback_host
from hubbub.envelope import Envelope
from hubbub.errors import DrainingError, HubError, UnavailableError
from hubbub.guards import GuardRule
from hubbub.planning import TryHard
from hubbub.ports import Kept, Record, RowsOf
from hubbub.store import sizes
from hubbub.store.journal import Statement
from hubbub.store.tables import AuditRow
from hubbub.tasks import request_envelope
from hubbub.tokens import ADMIN_FILE
from hubbub.values import Delivery, Endpoint, Principal, Receipt, Submission

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

__all__ = ["Facade"]

T = TypeVar("T")
S = TypeVar("S", bound=Settings)


class Facade(Addresses):
    """What plugins and adapters may do with the rooms of their hub."""

    # Endpoints

    def attach(self, endpoint: Endpoint) -> Attachment:
        """Bring an endpoint here; attaching its address again closes the older link."""
        return self.attachments.attach(endpoint)

    async def attach_for_good(self, endpoint: Endpoint) -> Attachment:
        """Attach an endpoint that is remembered over a restart, away until it is attached again."""
        return await self.attachments.attach_for_good(endpoint)

    async def subscribe(self, endpoint: Endpoint, pattern: str, *, limit: int = 1000) -> None:
        """Give an endpoint a private route, which goes when the endpoint is gone."""
        await self.attachments.subscribe(endpoint, pattern, limit=limit)

    async def unsubscribe(self, endpoint: Endpoint, pattern: str) -> None:
        """Take a private route back."""
        await self.attachments.unsubscribe(endpoint, pattern)

    def on_demand(
        self,
        prefix: str,
        make: Callable[[str], Endpoint | None],
        came: Callable[[Endpoint], None],
    ) -> Callable[[], None]:
        """Let addresses come into being when they are named."""

        def soon(endpoint: Endpoint) -> None:
            # Not at once: who plans may be in the middle of handing something over.
            asyncio.get_running_loop().call_soon(came, endpoint)

        return self.directory.on_demand(prefix, make, soon)

    def waiting(self, pattern: str) -> Sequence[str]:
        """Return the addresses a pattern covers for which something waits, also unknown ones."""
        return self.room.boxes.waiting(pattern)

    def guard(self, rule: GuardRule) -> None:
        """Guard the endpoints a pattern covers, where hub.toml says nothing of them."""
        self.room.guard_by_default(rule)

    # Messages and tasks

    async def publish(
        self,
        envelope: Envelope,
        *,
        principal: Principal | None = None,
        rows: RowsOf | None = None,
    ) -> Receipt:
        """Put an envelope into the routing table; returns when it is safe."""
        return await self.router.publish(envelope, principal=principal, rows=rows)

    def publish_soon(
        self,
        envelope: Envelope,
        *,
        principal: Principal,
        done: Callable[[Receipt | HubError], None],
    ) -> asyncio.Future[Any] | None:
        """Put an envelope into the routing table as `publish` does, without a coroutine."""
        return self.router.publish_soon(envelope, principal=principal, done=done)

    async def submit(
        self,
        work: Submission,
        *,
        principal: Principal | None = None,
        rows: RowsOf | None = None,
    ) -> Receipt:
        """Put a task into the routing table; returns when it is safe."""
        return await self.router.publish(request_envelope(work), principal=principal, rows=rows)

    def task_defaults(
        self, adapter: str, *, attempts: int, timeout_s: float, queue_ttl_s: float
    ) -> None:
        """Say how hard to try with tasks for an adapter's endpoints, also while there are none."""
        self.planner.tasks.defaults[adapter] = TryHard(
            attempts=attempts, timeout_s=timeout_s, queue_ttl_s=queue_ttl_s
        )

    async def request(self, envelope: Envelope, *, timeout_s: float) -> Envelope:
        """Publish and wait for one answer; nothing is stored."""
        return await self.asking.request(envelope, timeout_s=timeout_s)

    # The store

    async def keep(self, record: Record) -> Kept:
        """Keep rows of an adapter's own, or a task that nobody asked for."""
        if self.router.draining:
            raise DrainingError
        return await self.engine.keep(record)

    async def execute(self, *statements: Statement, patient: bool = False) -> None:
        """Run statements on an adapter's own tables, off the path of messages.

        Args:
            patient: They may take longer than `store.timeout`.
        """
        await self.journal.execute(*statements, patient=patient)

    async def read(self, query: Callable[[Session], T], *, patient: bool = False) -> T:
        """Read from the store, on a thread of its own.

        Args:
            patient: It may take longer than `store.timeout`.
        """
        return await self.database.read(query, patient=patient)

    async def audit(self, principal: str, act: str, target: str, detail: str = "") -> None:
        """Note an administrative act."""
        row = {
            "at_us": self.clock.now_us(),
            "principal": principal,
            "act": act,
            "target": target,
            "detail": detail,
        }
        await self.journal.execute((insert(AuditRow), [row]))

    # Who is here, and what was set

    def known(self, pattern: str) -> Sequence[Endpoint]:
        """Return all known endpoints an address or pattern covers, present or away."""
        return [known.endpoint for known in self.directory.members(pattern)]

    def authenticate(self, token: str) -> Principal:
        """Return who an API token belongs to.

        Raises:
            UnauthorizedError: unknown, expired or revoked.
        """
        return self.tokens.authenticate(token)

    def settings(self, name: str, model: type[S]) -> S:
        """Return the `[adapters.<name>]` table."""
        return self.config.section("adapters", name, model)

    def plugin_settings(self, name: str, model: type[S]) -> S:
        """Return the `[plugins.<name>]` table."""
        return self.config.section("plugins", name, model)

    # The hub itself

    @property
    def data_dir(self) -> Path:
        """The folder of the hub's files."""
        return self.config.hub.data_dir

    @property
    def private_files(self) -> frozenset[Path]:
        """Files that nobody may be shown: the database, tokens, secrets, hub.toml."""
        kept = {self.data_dir / ADMIN_FILE, *self.config.private_files}
        if named := self._environ.get("HUBBUB_ADMIN_TOKEN_FILE"):
            kept.add(Path(named))
        if self.database.path is not None:
            kept.add(self.database.path)
        return frozenset(path.resolve() for path in kept)

    def wanted(self, subject: str, envelope_type: str) -> bool:
        """Tell whether a route or somebody live wants what is published there."""
        return self.state == "ready" and self.router.wanted(subject, envelope_type)

    def observe(
        self,
        *,
        accepted: Callable[[Envelope], None],
        ended: Callable[[Delivery], None],
    ) -> Callable[[], None]:
        """Look at every envelope that was accepted, and every delivery that has ended."""
        self._ended_observers.append(ended)
        forget = self.router.tap(accepted, quiet=True)

        def end() -> None:
            self._ended_observers.remove(ended)
            forget()

        return end

    def translate(self, key: str, args: Mapping[str, object], locale: str) -> str | None:
        """Return a text in a language, by the first plugin that has it; None when none has."""
        return self.plugins.translate(key, args, locale)

    async def database_bytes(self) -> int:
        """Return what the database takes on disk."""
        return await self.read(sizes.database_bytes)

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request as the one port does."""
        if self.app is None:
            raise UnavailableError("the hub serves no paths yet; try again when it is ready")
        await self.app(scope, receive, send)

    def is_on_loopback(self, adapter: str) -> bool:
        """Tell whether all HTTP listeners that serve an adapter are bound to loopback."""
        settings = self.adapters.get(adapter).settings
        hosts = [self.config.hub.host, *(address.host for address in settings.listen)]
        return all(map(is_loopback_host, hosts))
