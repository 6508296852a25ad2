"""A stream worker as a process of its own, to be killed: `python -m tests.chaos.stream_worker URL`.

It takes task requests with manual acknowledgement and finishes each. A line per task on standard
output: `given ID`, before its result is sent.
"""

from __future__ import annotations

import asyncio
import json
import sys

from websockets.asyncio.client import connect

__all__ = ["QUERY", "result_of"]

QUERY = "name=worker&durable=1&ack=manual&concurrency=4&accepts=hubbub.task.request.v1&task_types=*"


def result_of(task_id: str, worker: str) -> str:
    """Return the frame that finishes a task."""
    data = {"task_id": task_id, "state": "completed", "result": {"by": worker}}
    envelope = {"subject": "worker.done", "type": "hubbub.task.result.v1", "data": data}
    return json.dumps({"type": "publish", "ref": task_id, "envelope": envelope})


async def work(url: str, token: str, worker: str) -> None:
    """Take tasks and finish them until the process is killed."""
    headers = {"Authorization": f"Bearer {token}"}
    async with connect(f"{url}?{QUERY}", additional_headers=headers, proxy=None) as socket:
        async for text in socket:
            frame = json.loads(text)
            if frame["type"] == "envelope":
                task_id = frame["envelope"]["data"]["task_id"]
                sys.stdout.write(f"given {task_id}\n")
                sys.stdout.flush()
                await socket.send(result_of(task_id, worker))


if __name__ == "__main__":
    asyncio.run(work(*sys.argv[1:]))
