"""The deployments of a runner: what it is ordered to do with them, one order at a time for each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hubbub.ports import Clock
from hubbub_kenko.runner.fetching import Packages
from hubbub_kenko.runner.output import Output
from hubbub_kenko.runner.packages import PackageError, check_env, inspect
from hubbub_kenko.runner.processes import Processes, Status
from hubbub_kenko.runner.wire import Order, status_data

__all__ = ["Bench"]

Changed = Callable[[str, Status], None]
"""Takes the id of a deployment and how it is now."""


class Bench:
    """The deployments of one runner.

    Args:
        url_of: Makes a URL of a path on the hub.
        changed: Called for each change of a deployment.
        wrote: Called with the id of one that has more output.
    """

    def __init__(
        self,
        folder: Path,
        clock: Clock,
        *,
        url_of: Callable[[str], str],
        fetch_s: float,
        changed: Changed,
        wrote: Callable[[str], None],
    ) -> None:
        self._processes = Processes(folder / "deployments", clock, wrote=wrote)
        self._packages = Packages(folder / "packages", timeout_s=fetch_s)
        self._url_of = url_of
        self._changed = changed
        self._digests: dict[str, str] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    def statuses(self) -> dict[str, Status]:
        """Return how all deployments are."""
        found = {one: self._processes.find(one) for one in self._processes.ids()}
        return {one: process.status for one, process in found.items() if process is not None}

    def output_of(self, deployment_id: str) -> Output:
        """Return the output of a deployment."""
        return self._processes.output_of(deployment_id)

    async def obey(self, order: Order) -> Mapping[str, Any]:
        """Carry out an order; returns how its deployment is then.

        Raises:
            FetchError: the package cannot be had.
            PackageError: it cannot be used, or the order does not fit it.
            OSError: there is no place for it.
        """
        async with self._locks.setdefault(order.deployment_id, asyncio.Lock()):
            match order.op:
                case "start":
                    await self._start(order)
                case "fetch":
                    await self._fetch(order)
                case "stop":
                    await self._processes.stop(order.deployment_id)
                case "remove":
                    await self._remove(order.deployment_id)
                case "status":
                    pass
                case _:
                    raise PackageError(f"this runner does not know {order.op[:40]!r}")
        process = self._processes.find(order.deployment_id)
        return status_data(Status("stopped") if process is None else process.status)

    async def end_all(self) -> None:
        """End all processes; nobody is told, for they shall run again."""
        await self._processes.stop_all()

    async def _start(self, order: Order) -> None:
        """Fetch, unpack and run; what runs already goes on."""
        deployment_id = order.deployment_id
        there = self._processes.find(deployment_id)
        if there is not None and (there.wanted or (order.again and there.done)):
            return
        check_env(order.env)
        path = await self._fetch(order)
        manifest = await asyncio.to_thread(inspect, path)
        if order.entry != manifest.entry:
            raise PackageError(f"entry is {order.entry[:80]!r}, the package has another one")
        await self._processes.start(
            deployment_id,
            path,
            entry=order.entry,
            env=order.env,
            changed=lambda status: self._changed(deployment_id, status),
        )

    async def _fetch(self, order: Order) -> Path:
        if order.package is None:
            raise PackageError(f"{order.op} needs a package")
        self._digests[order.deployment_id] = order.package.sha256  # from now on it is needed
        return await self._packages.fetch(order.package, self._url_of(order.package.path))

    async def _remove(self, deployment_id: str) -> None:
        await self._processes.remove(deployment_id)
        self._digests.pop(deployment_id, None)
        await self._packages.keep_only(frozenset(self._digests.values()))
