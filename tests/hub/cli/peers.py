"""A hub as `hubbub run` starts it, with endpoints to send to; run as a process of its own.

`peer.takes` takes everything and answers requests, `peer.refuses` refuses, `peer.away` is not
there, `peer.worker` does tasks, `peer.stuck` never finishes what it was given.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import msgspec

from hubbub import Endpoint, Envelope, Hub, Reject, Route, hookimpl
from hubbub import hub as hub_process
from hubbub.config import load_config
from hubbub.envelope import TASK_REQUEST
from hubbub.values import TaskResult


class Takes(Endpoint):
    """Takes everything; what it returns answers a request."""

    async def deliver(self, envelope: Envelope) -> object:
        return Envelope.new(
            source=self.address,
            subject="answers",
            data={"got": envelope.json()},
            in_reply_to=envelope.id,
        )


class Refuses(Endpoint):
    """Refuses everything."""

    async def deliver(self, envelope: Envelope) -> object:
        raise Reject("broken")


class Stuck(Endpoint):
    """Begins and does not end."""

    async def deliver(self, envelope: Envelope) -> object:
        return await asyncio.Event().wait()


class Worker(Endpoint):
    """Does tasks."""

    hub: Hub

    async def deliver(self, envelope: Envelope) -> object:
        match envelope.json():
            case {"task_id": str(task_id), "params": object() as params}:
                pass
            case other:
                raise Reject(f"no task: {other}")
        result = TaskResult(task_id, result=msgspec.Raw(msgspec.json.encode(params)))
        await self.hub.work.finish(result, by=self.address)
        return None


class Peers:
    """The plugin that brings them."""

    @hookimpl
    def routes(self) -> list[Route]:
        names = ("takes", "refuses", "away", "stuck")
        return [Route(name=f"to {name}", match=f"{name}.>", to=(f"peer.{name}",)) for name in names]

    @hookimpl
    def startup(self, hub: Hub) -> None:
        plain = ("hubbub.event.v1",)
        hub.attach(Takes(address="peer.takes", accepts=plain))
        hub.attach(Refuses(address="peer.refuses", accepts=plain))
        hub.attach(Stuck(address="peer.stuck", accepts=plain))
        hub.attach(Endpoint(address="peer.away", accepts=plain, linger_s=None)).close()
        worker = Worker(address="peer.worker", accepts=(TASK_REQUEST,), task_types=("add",))
        worker.hub = hub
        hub.attach(worker)


def main() -> int:
    """Run it in the working directory."""
    config = load_config(None, overrides=["hub.port=0", "hub.timeout=30s"])
    running = hub_process.Hub(config)
    running.core.plugins.add("peers", Peers())
    return asyncio.run(running.serve())


if __name__ == "__main__":
    assert Path.cwd() != Path(__file__).parents[3], "this would use the checkout's own data"
    sys.exit(main())
