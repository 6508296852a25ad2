"""All nodes that are connected: one connection an id, the newest wins."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Final

import structlog

from hubbub import Hub
from hubbub.errors import HubError, NotFoundError
from hubbub_octohub import records, remembered
from hubbub_octohub.config import OctohubSettings
from hubbub_octohub.gate import Gate
from hubbub_octohub.metrics import OctohubMetrics
from hubbub_octohub.node import NodeConnection
from hubbub_octohub.records import NodeRule
from hubbub_octohub.session import rule_for
from hubbub_octohub.socket import Socket
from hubbub_octohub.talk import Talk

__all__ = ["Nodes"]

STOP_S: Final = 2.0
"""Seconds that connections may take to end when the adapter stops."""

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Nodes:
    """Who is connected, and what administrators said of them."""

    def __init__(
        self, hub: Hub, settings: OctohubSettings, gate: Gate, metrics: OctohubMetrics
    ) -> None:
        self._hub = hub
        self._settings = settings
        self._gate = gate
        self._metrics = metrics
        self._by_id: dict[str, NodeConnection] = {}
        self._all: set[NodeConnection] = set()
        self._rules: Sequence[NodeRule] = ()
        self._number = 0

    def __iter__(self) -> Iterator[NodeConnection]:
        return iter(sorted(self._by_id.values(), key=lambda one: one.pc_id))

    def __len__(self) -> int:
        return len(self._by_id)

    @property
    def in_hand(self) -> int:
        """Tasks that nodes have."""
        return sum(connection.in_hand for connection in self._by_id.values())

    def get(self, pc_id: str) -> NodeConnection | None:
        """Return the connection of a node."""
        return self._by_id.get(pc_id)

    async def serve(self, pc_id: str, socket: Socket, talk: Talk) -> None:
        """Serve a node whose address was good."""
        connection = NodeConnection(
            pc_id,
            socket,
            home=self,
            hub=self._hub,
            settings=self._settings,
            metrics=self._metrics,
            talk=talk,
        )
        older = self._by_id.get(pc_id)
        if older is not None:
            self._metrics.replacements.inc()
            self._gate.flaps.replaced(pc_id, now_s=self._gate.now_s)
            self._hub.spawn(older.make_way())
        self._by_id[pc_id] = connection
        self._all.add(connection)
        self._number += 1
        log.info("octohub.node", node=pc_id, peer=socket.peer)
        self._hub.spawn(self._seen(pc_id))
        await connection.serve(f"{pc_id}-{self._number}")

    def left(self, connection: NodeConnection) -> None:
        """A connection has ended; a newer one of its id stays."""
        self._all.discard(connection)
        if self._by_id.get(connection.pc_id) is connection:
            del self._by_id[connection.pc_id]
            self._hub.spawn(self._seen(connection.pc_id))

    async def _seen(self, pc_id: str) -> None:
        """Note that a node is here, or was until now."""
        now_us = self._hub.clock.now_us()
        try:
            await self._hub.execute(*remembered.keep_seen([pc_id], now_us=now_us))
        except HubError as error:
            log.debug("octohub.not_noted", node=pc_id, error=str(error))

    async def kick(self, pc_id: str, reason: str) -> None:
        """Close the connection of a node.

        Raises:
            NotFoundError: it is not connected.
        """
        connection = self._by_id.get(pc_id)
        if connection is None:
            raise NotFoundError(f"node {pc_id[:100]!r} is not connected")
        await connection.dismiss(reason)

    def dismiss_all(self, reason: str, *, code: int) -> None:
        """Close all connections: the key that they came with is another one now."""
        for connection in list(self._all):
            self._hub.spawn(connection.dismiss(reason, code=code))

    async def stop(self) -> None:
        """Close all connections."""
        connections = list(self._all)
        for connection in connections:
            self._hub.spawn(connection.socket.close(1012, "the hub stops"))
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_S):
                for connection in connections:
                    await connection.ended.wait()

    # What administrators say

    def rule(self, pc_id: str) -> NodeRule | None:
        """Return what an administrator said of a node."""
        return rule_for(self._rules, pc_id)

    @property
    def rules(self) -> Sequence[NodeRule]:
        """All that was said."""
        return self._rules

    def is_disabled(self, pc_id: str) -> bool:
        """Tell whether a node may not come in."""
        rule = self.rule(pc_id)
        return rule is not None and not rule.enabled

    async def load(self) -> None:
        """Read what was said before."""
        self._rules = await self._hub.read(records.all_rules)

    async def change(self, rule: NodeRule) -> None:
        """Put a rule in the place of the one for the same node or nodes."""
        await self._hub.execute(*records.keep_rule(rule, now_us=self._hub.clock.now_us()))
        await self._changed()

    async def forget(self, pc_id: str) -> None:
        """Take back what was said.

        Raises:
            NotFoundError: nothing was.
        """
        if all(rule.pc_id != pc_id for rule in self._rules):
            raise NotFoundError(f"nothing was said of node {pc_id[:100]!r}")
        await self._hub.execute(records.forget_rule(pc_id))
        await self._changed()

    async def _changed(self) -> None:
        await self.load()
        for connection in list(self._all):
            if self.is_disabled(connection.pc_id):
                self._hub.spawn(connection.dismiss("disabled"))
            else:
                connection.apply()
