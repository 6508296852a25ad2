"""A virtual user talks to real applications, hears their answers, and can look back."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest

from tests.adapters.kenko.admin.serving import ADMIN, Kenko, application


async def conversation(kenko: Kenko, session: str, number: int) -> list[dict[str, Any]]:
    """Return a conversation once it has so many messages."""
    async with asyncio.timeout(20):
        while True:
            items: list[dict[str, Any]] = (await kenko.get(f"/simulate/{session}/messages"))[
                "items"
            ]
            if len(items) >= number:
                return items
            await asyncio.sleep(0.02)


async def test_an_application_hears_and_answers(kenko: Kenko) -> None:
    """What is said comes as a message with its source; the answer comes back into the session."""
    async with application(kenko, "weather-bot") as app:
        said = await kenko.post(
            "/simulate", {"content": "weather?", "user_id": "815", "group_id": "4711", "lang": "en"}
        )
        assert (said["session"], said["outcome"]) == ("4711", "accepted")
        message = await app.receive("message")
        assert (message["id"], message["content"]) == (said["message_id"], "weather?")
        assert message["trace_id"] == said["trace_id"]
        assert message["lang"] == "en"
        assert message["source"]["user_id"] == "815"
        assert message["source"]["group_id"] == "4711"
        await app.send("message", content="rain", reply_to=message["id"])
        first, second = await conversation(kenko, "4711", 2)
        assert (first["content"], first["direction"], first["user_id"]) == ("weather?", "in", "815")
        assert (second["content"], second["direction"]) == ("rain", "out")
        assert second["app"] == "weather-bot"
        assert second["in_reply_to"] == said["message_id"]
        assert second["latency_ms"] > 0
        assert second["trace_id"] == said["trace_id"]
        page = await kenko.get("/simulate/4711/messages", limit=1)
        assert [one["content"] for one in page["items"]] == ["weather?"]
        page = await kenko.get("/simulate/4711/messages", limit=1, cursor=page["next"])
        assert ([one["content"] for one in page["items"]], page["next"]) == (["rain"], None)


async def test_answers_are_on_the_event_stream(kenko: Kenko) -> None:
    """Both sides of the conversation, live."""
    async with application(kenko) as app, httpx2.AsyncClient(timeout=20) as client:
        headers = {"authorization": f"Bearer {ADMIN}", "accept": "text/event-stream"}
        url = f"{kenko.url}/api/v1/stream?subject=kenko.>"
        async with client.stream("GET", url, headers=headers) as stream:
            lines = stream.aiter_lines()
            await anext(lines)
            await kenko.post("/simulate", {"content": "hello"})
            message = await app.receive("message")
            await app.send("message", content="hi there", reply_to=message["id"])
            async for line in lines:
                if line.startswith("data:") and "hi there" in line:
                    assert f"kenko.{app.id}.message" in line
                    break


async def test_each_session_is_apart(kenko: Kenko) -> None:
    """By group, else by user."""
    async with application(kenko) as app:
        for body in ({"content": "a", "user_id": "u1"}, {"content": "b", "user_id": "u2"}):
            await kenko.post("/simulate", body)
            message = await app.receive("message")
            await app.send("message", content=message["content"] * 2, reply_to=message["id"])
        one = await conversation(kenko, "u1", 2)
        two = await conversation(kenko, "u2", 2)
        assert [each["content"] for each in (*one, *two)] == ["a", "aa", "b", "bb"]


async def test_nobody_there_is_said_in_the_users_language(kenko: Kenko) -> None:
    """In the conversation, and in the outcome."""
    said = await kenko.post("/simulate", {"content": "hello", "user_id": "u", "lang": "en"})
    assert said["outcome"] == "unrouted"
    _, answer = await conversation(kenko, "u", 2)
    assert answer["content"] == "No application is running that could answer."
    await kenko.post("/simulate", {"content": "hello", "user_id": "v"})
    _, answer = await conversation(kenko, "v", 2)
    assert answer["content"] == "没有正在运行的应用可以回答。"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"content": ""},
        {"content": 3},
        {"content": "x", "user_id": ""},
        {"content": "x", "group_id": "g" * 129},
        {"content": "x", "other": 1},
        ["content"],
    ],
)
async def test_bad_bodies_are_refused(kenko: Kenko, body: object) -> None:
    """In the shape of this API."""
    error = (await kenko.post("/simulate", body, status=422))["error"]
    assert error["code"] == "invalid"
    assert error["message"]


async def test_content_at_its_edge(kenko: Kenko) -> None:
    """64 KiB of text, and one more."""
    await kenko.post("/simulate", {"content": "x" * 65_536})
    await kenko.post("/simulate", {"content": "x" * 65_537}, status=422)


async def test_a_message_with_a_key_is_said_in_words(kenko: Kenko) -> None:
    """An application sends `key` and `args` instead of `content`; the asker's language holds."""
    put = await kenko.client.put("/i18n/en", json={"rain": "Rain until {time}"})
    assert put.status_code == 200
    async with application(kenko) as app:
        await kenko.post("/simulate", {"content": "weather?", "user_id": "u", "lang": "en"})
        message = await app.receive("message")
        await app.send("message", key="rain", args={"time": "18:00"}, reply_to=message["id"])
        _, answer = await conversation(kenko, "u", 2)
        assert answer["content"] == "Rain until 18:00"
