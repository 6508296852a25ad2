"""A node written from the original's README alone: nothing of the hub is imported here.

The README says: a request to the API server for the address, signed with HMAC-SHA256 over what the
API wants signed, then a WebSocket on which frames have a `type`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

from websockets.sync.client import ClientConnection, connect

Handler = Callable[[dict[str, Any]], Any]


class ReadmeNode:
    """Gets an address, connects, says `node_ready`, does tasks one after the other."""

    def __init__(self, server: str, pc_id: str, key: str = "mySignatureKey123456789012345") -> None:
        self.server = server
        self.pc_id = pc_id
        self.key = key
        self.heard: list[str] = []
        self.handlers: dict[str, Handler] = {
            "echo": lambda task: {"echo": task["data"], "processed_at": int(time.time())},
            "default": lambda task: f"任务 {task['task_id']} 处理完成",
        }

    def address(self) -> str:
        """Ask the API server for the WebSocket address."""
        timestamp, nonce = str(int(time.time())), str(int(time.time() * 1000) + 999)
        text = f"GET&/node/ws&pc_id={self.pc_id}&{timestamp}&{nonce}"
        digest = hmac.new(self.key.encode(), text.encode(), hashlib.sha256).digest()
        request = Request(  # http on this machine
            f"{self.server}/node/ws?pc_id={self.pc_id}",
            headers={
                "X-Timestamp": timestamp,
                "X-Nonce": nonce,
                "X-Signature": base64.b64encode(digest).decode(),
                "Content-Type": "application/json",
            },
        )
        with build_opener(ProxyHandler({})).open(request, timeout=10) as answer:
            body = json.loads(answer.read())
        assert body["errcode"] == 0, body
        url: str = body["data"]["wsUrl"]
        return url

    def work(self, count: int) -> None:
        """Do that many tasks, then leave."""
        with connect(self.address(), proxy=None) as socket:
            while count:
                frame = json.loads(socket.recv(timeout=30))
                self.heard.append(frame["type"])
                if frame["type"] == "connected":
                    ready = {"type": "node_ready", "pc_id": self.pc_id}
                    socket.send(json.dumps({**ready, "timestamp": int(time.time())}))
                elif frame["type"] == "task":
                    self._do(socket, frame)
                    count -= 1

    def _do(self, socket: ClientConnection, task: dict[str, Any]) -> None:
        handler = self.handlers.get(task["task_type"], self.handlers["default"])
        said: dict[str, Any] = {"type": "task_result", "task_id": task["task_id"]}
        try:
            said |= {"status": "completed", "result": handler(task)}
        except Exception as error:  # noqa: BLE001  # the README: an exception is an error status
            said |= {"status": "failed", "error": str(error)}
        socket.send(json.dumps({**said, "timestamp": int(time.time())}))
