"""Messages both ways: to applications, their answers, what they say themselves, tasks."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from hubbub import Converter, Envelope, hookimpl
from hubbub.envelope import CHAT_MESSAGE
from hubbub.testing import FakeClock, RecordingEndpoint, serving_hub
from hubbub.values import Route
from tests.adapters.kenko.serving import CHAT, Kenko, chat, running_kenko, until

RELAY = {"X-Relay-API-Key": "lynker_relay_secret_2025"}

TO_APPS = '[[routes]]\nname = "r"\nmatch = "to.apps"\nto = ["kenko.app.*"]\n'


async def test_chat_that_no_route_takes_reaches_every_application_that_runs(kenko: Kenko) -> None:
    """With its content, where it came from, its language, trace and time; once each."""
    async with kenko.app() as one, kenko.app() as other, kenko.app(subscribe=[]) as picky:
        said = await kenko.ask("weather?")
        for app in (one, other):
            data = await app.next("message")
            assert data.pop("time") > 1_700_000_000
            assert data == {
                "id": said["id"],
                "content": "weather?",
                "source": {
                    "adapter": "api",
                    "address": "api.admin",
                    "platform": "qq",
                    "group_id": "4711",
                    "user_id": "815",
                },
                "lang": "zh-CN",
                "trace_id": said["trace_id"],
            }
            await app.silence()
        await picky.silence()
        kenko.desk.apps.get(one.id).pause()
        await one.next("pause")
        assert (await kenko.ask("again"))["deliveries"] == 1
        assert (await other.next("message"))["content"] == "again"
        await one.silence()


async def test_what_is_no_chat_needs_a_route(kenko: Kenko) -> None:
    """An event of no type in particular is nobody's."""
    async with kenko.app() as app:
        assert (await kenko.publish("some.event", {"n": 1}))["outcome"] == "unrouted"
        await app.silence()


async def test_chat_of_another_protocol_is_converted(tmp_path: Path) -> None:
    """The fallback is for whatever can be made chat."""

    class Other:
        @hookimpl
        def converters(self) -> list[Converter]:
            def convert(envelope: Envelope) -> Envelope:
                data: Any = envelope.json()
                return Envelope.new(
                    source=envelope.source,
                    subject=envelope.subject,
                    type=CHAT_MESSAGE,
                    data=chat(data["words"]),
                ).replace(id=envelope.id, traceparent=envelope.traceparent)

            return [Converter("other.says.v1", CHAT_MESSAGE, convert)]

    toml = "[adapters.kenko]\nenabled = true\n"
    async with serving_hub(tmp_path, toml, plugins={"other": Other()}) as hub:
        running = Kenko(hub, None)  # type: ignore[arg-type]
        async with running.app() as app:
            said = Envelope.new(
                source="other.1", subject="other.says", type="other.says.v1", data={"words": "hi"}
            )
            await hub.core.publish(said)
            assert (await app.next("message"))["content"] == "hi"


async def test_a_route_sends_anything(tmp_path: Path) -> None:
    """Text where there is some, else the data as JSON."""
    async with running_kenko(tmp_path, more=TO_APPS) as kenko, kenko.app() as app:
        for data, content in (
            ({"content": "a"}, "a"),
            ({"text": "b"}, "b"),
            ("c", "c"),
            ({"n": [1]}, '{"n":[1]}'),
            (None, "null"),
        ):
            await kenko.publish("to.apps", data)
            assert (await app.next("message"))["content"] == content


async def test_hubbub_publish_is_answered_on_one_trace(kenko: Kenko) -> None:
    """From the command line to an application of the seed and back to the caller's replies."""

    async def hubbub(*arguments: str) -> str:
        token = str(kenko.hub.core.new_admin_token)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "hubbub.cli", *arguments, "--url", kenko.url, "--token", token,
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, _ = await process.communicate()
        assert process.returncode == 0
        return out.decode()

    desk = RecordingEndpoint("plugin.desk")
    kenko.core.attach(desk)
    async with kenko.app() as app:
        await hubbub(
            "publish", "desk.asks", "--type", CHAT, "--data", '{"text": "weather?"}',
            "--reply-to", "plugin.desk",
        )  # fmt: skip
        message = await app.next("message")
        assert message["content"] == "weather?"
        await app.say("Rain until 18:00", reply_to=message["id"])
        (answer,) = await desk.wait_for(1)
        data: Any = answer.json()
        assert data["text"] == "Rain until 18:00"
        assert (answer.source, answer.subject) == (app.address, f"kenko.{app.id}.message")
        assert answer.trace_id == message["trace_id"]
        told = await hubbub("explain", message["id"])
        assert app.address in told


async def test_an_answer_goes_to_the_conversation_of_the_question(kenko: Kenko) -> None:
    """The group of the question is the group of the answer; it orders both."""
    bot = RecordingEndpoint("onebot.bot.1")
    kenko.core.attach(bot)
    async with kenko.app() as app:
        asked = Envelope.new(
            source="onebot.bot.1", subject="onebot.1.x", type=CHAT, data=chat("?"), key="4711"
        )
        await kenko.core.publish(asked)
        message = await app.next("message")
        await app.say("!", reply_to=message["id"], lang="en-GB", segments=[{"type": "text"}])
        (answer,) = await bot.wait_for(1)
        assert answer.json() == {
            "text": "!",
            "sender": {"id": app.id, "name": "weather-bot"},
            "conversation": {"id": "4711", "kind": "group"},
            "platform": "kenko",
            "lang": "en-GB",
            "segments": [{"type": "text"}],
        }
        assert answer.key == "4711"
        # The source of a message, or its group alone, is a target.
        for target in (message["source"], {"adapter": "onebot", "group_id": "4711"}):
            await app.say("later", target=target)
        for later in (await bot.wait_for(3))[1:]:
            data: Any = later.json()
            assert data["conversation"] == {"id": "4711", "kind": "group"}
            assert later.in_reply_to is None


async def test_an_answer_for_other_people_is_not_told_to_who_asked(kenko: Kenko) -> None:
    """A target of another adapter that nothing came from: routes decide, on the same trace."""
    bot, other = RecordingEndpoint("onebot.bot.1"), RecordingEndpoint("mail.box")
    kenko.core.attach(bot)
    kenko.core.attach(other)
    async with kenko.app() as app:
        asked = Envelope.new(source="onebot.bot.1", subject="onebot.1.x", type=CHAT, data=chat("?"))
        await kenko.core.publish(asked)
        message = await app.next("message")
        mail = {"adapter": "mail", "user_id": "ada"}
        await app.say("secret", reply_to=message["id"], target=mail)
        refused = await app.next("error")
        assert (refused["code"], refused["ref"]) == ("no_route", message["id"])
        assert refused["message"] == "nobody takes this message: nobody it could go to is here"
        assert bot.taken == []
        mails = {"data.target.adapter": "mail"}
        kenko.core.table.put(
            Route(name="m", match="kenko.*.message", where=mails, to=("mail.box",))
        )
        await app.say("secret", reply_to=message["id"], target=mail)
        (told,) = await other.wait_for(1)
        assert told.trace_id == message["trace_id"]
        # A group of the same adapter that nothing came from yet: who asked knows the way.
        await app.say("psst", reply_to=message["id"], target={"adapter": "onebot", "group_id": "9"})
        (psst,) = await bot.wait_for(1)
        data: Any = psst.json()
        assert data["conversation"] == {"id": "9", "kind": "group"}


async def test_a_relay_message_comes_back_as_an_answer(tmp_path: Path) -> None:
    """On one trace, which `explain` can tell."""
    more = (
        "[adapters.relay]\nenabled = true\n\n"
        '[[routes]]\nname = "r"\nmatch = "relay.child.message"\nto = ["kenko.app.*"]\n'
    )
    async with running_kenko(tmp_path, more=more) as kenko, kenko.app() as app:
        sent = {"from": "master", "to": "child", "type": "message", "text": "hello"}
        answer = await kenko.http.post("/api/relay/send", json=sent, headers=RELAY)
        assert answer.status_code == 200
        message = await app.next("message")
        assert (message["content"], message["source"]["adapter"]) == ("hello", "relay")
        await app.say("hello yourself", reply_to=message["id"])
        await app.silence()
        logs = (await kenko.http.get("/api/relay/logs", headers=RELAY)).json()["logs"]
        said = [(log["from"], log["to"], log["text"]) for log in logs]
        assert said == [("master", "child", "hello"), (app.address, "master", "hello yourself")]
        spans = (await kenko.http.get(f"/api/v1/traces/{message['trace_id']}")).text
        assert app.address in spans
        assert "relay.master" in spans


async def test_what_an_application_says_enters_the_table(tmp_path: Path) -> None:
    """On `kenko.<id>.message`; what nobody takes is an error, and not its own message."""
    async with running_kenko(tmp_path) as kenko, kenko.app() as app:
        await app.say("alone")
        assert (await app.next("error"))["code"] == "no_route"
        await app.say("lost", reply_to="nobody-said-this")
        lost = await app.next("error")
        assert lost["ref"] == "nobody-said-this"
        assert lost["message"] == "nobody takes this message: what it answers is not known"
        await app.say("astray", target={"address": "no.such"})
        assert (await app.next("error"))["code"] == "no_route"
        await app.say("astray", target={"address": "no*t"})
        assert (await app.next("error"))["code"] == "bad_data"
        taker = RecordingEndpoint("plugin.taker")
        kenko.core.attach(taker)
        kenko.core.table.put(Route(name="t", match="kenko.*.message", to=("plugin.taker",)))
        await app.say("heard")
        (envelope,) = await taker.wait_for(1)
        assert envelope.subject == f"kenko.{app.id}.message"
        assert envelope.type == CHAT
        assert envelope.source == app.address


async def test_applications_hear_each_other_where_nobody_else_does(kenko: Kenko) -> None:
    """The fallback holds for their messages too, but for the one who speaks."""
    async with kenko.app() as one, kenko.app() as other:
        await one.say("anybody?")
        message = await other.next("message")
        assert message["source"]["address"] == one.address
        await other.say("me", reply_to=message["id"])
        assert (await one.next("message"))["content"] == "me"
        await other.silence()


async def test_a_request_is_answered_by_an_application(tmp_path: Path) -> None:
    """`POST /api/v1/requests` waits for the answer with `reply_to`."""
    async with running_kenko(tmp_path, more=TO_APPS) as kenko, kenko.app() as app:
        body = {"subject": "to.apps", "type": CHAT, "data": {"text": "?"}, "timeout": "5s"}
        asking = asyncio.ensure_future(kenko.http.post("/api/v1/requests", json=body))
        message = await app.next("message")
        await app.say("42", reply_to=message["id"])
        answer = await asking
        assert answer.status_code == 200
        assert answer.json()["data"]["text"] == "42"


async def test_subscriptions_are_routes(kenko: Kenko) -> None:
    """Private ones; they go with the application, and one message comes once.

    They take nothing from who subscribed nothing, and so hears all that no route takes.
    """
    async with kenko.app(subscribe=["weather.>", "*.rain"]) as app, kenko.app() as other:
        assert (await kenko.ask("wet", "weather.rain"))["deliveries"] == 2
        for each in (app, other):
            assert (await each.next("message"))["content"] == "wet"
            await each.silence()
        assert (await kenko.ask("dry", "desert.sun"))["deliveries"] == 1
        assert (await other.next("message"))["content"] == "dry"
        await app.silence()


async def test_a_durable_message_waits_for_the_start(tmp_path: Path) -> None:
    """A volatile one waits as well; both are delivered."""
    async with running_kenko(tmp_path, more=TO_APPS) as kenko, kenko.app() as app:
        operated = kenko.desk.apps.get(app.id)
        operated.pause()
        await app.next("pause")
        first = await kenko.ask("kept", "to.apps")
        await kenko.ask("not kept", "to.apps", durable=False)
        await app.silence()
        operated.start()
        await app.next("start")
        got = [(await app.next("message"))["content"] for _ in range(2)]
        assert got == ["kept", "not kept"]
        assert (await kenko.ended(first["id"]))["outcome"] == "delivered"


async def test_what_waits_for_an_application_that_left_is_dead(tmp_path: Path) -> None:
    """After a minute: it comes back under another id."""
    clock = FakeClock()
    async with running_kenko(tmp_path, more=TO_APPS, clock=clock) as kenko:
        async with kenko.app() as app:
            kenko.desk.apps.get(app.id).pause()
            await app.next("pause")
            said = await kenko.ask("too late", "to.apps")
        await until(lambda: not kenko.desk.connections)
        await clock.advance(59)
        answer = (await kenko.http.get(f"/api/v1/envelopes/{said['id']}")).json()
        assert answer["deliveries"][0]["state"] == "pending"
        await clock.advance(2)
        ended = await kenko.ended(said["id"])
        assert (ended["outcome"], ended["reason"]) == ("dead", "endpoint_gone")


# Acknowledgement


async def test_an_acknowledged_message_is_delivered(tmp_path: Path) -> None:
    """Not before; `ok` false is a rejection; a second one and a foreign one are ignored."""
    async with (
        running_kenko(tmp_path, more=TO_APPS) as kenko,
        kenko.app(capabilities=["ack"]) as app,
    ):
        taken, refused = await kenko.ask("a", "to.apps"), await kenko.ask("b", "to.apps")
        ids = [(await app.next("message"))["id"] for _ in range(2)]
        assert ids == [taken["id"], refused["id"]]
        await app.send({"type": "ack", "data": {"id": ids[0]}})
        assert (await kenko.ended(ids[0]))["outcome"] == "delivered"
        nack = {"type": "ack", "data": {"id": ids[1], "ok": False, "error": "no"}}
        await app.send(nack, nack, {"type": "ack", "data": {"id": "m_other"}})
        ended = await kenko.ended(ids[1])
        assert (ended["outcome"], ended["reason"]) == ("dead", "rejected")
        await app.silence()


async def test_an_unacknowledged_message_comes_again(tmp_path: Path) -> None:
    """Under the same id, `max_redeliver` times in all, whatever the route says; then it is dead."""
    clock = FakeClock()
    more = TO_APPS + "attempts = 9\n"
    table = 'max_redeliver = 3\nheartbeat_interval = "1h"'
    async with (
        running_kenko(tmp_path, table, more=more, clock=clock) as kenko,
        kenko.app(capabilities=["ack"]) as app,
    ):
        said = await kenko.ask("?", "to.apps")
        assert (await app.next("message"))["id"] == said["id"]
        await clock.advance(29)
        await app.silence()
        for wait_s in (4, 36):
            await clock.advance(wait_s)
            assert (await app.next("message"))["id"] == said["id"]
        await clock.advance(40)
        ended = await kenko.ended(said["id"])
        assert (ended["outcome"], ended["reason"]) == ("dead", "timeout")
        assert ended["attempts"] == 3
        await app.silence()


async def test_without_ack_a_message_comes_at_most_once(tmp_path: Path) -> None:
    """Written is delivered."""
    async with running_kenko(tmp_path, more=TO_APPS) as kenko, kenko.app() as app:
        said = await kenko.ask("once", "to.apps")
        await app.next("message")
        ended = await kenko.ended(said["id"])
        assert (ended["outcome"], ended["attempts"]) == ("delivered", 1)


async def test_messages_under_way_are_as_many_as_asked_for(tmp_path: Path) -> None:
    """`concurrency` of an application that acknowledges."""
    async with (
        running_kenko(tmp_path, more=TO_APPS) as kenko,
        kenko.app(capabilities=["ack"], concurrency=2) as app,
    ):
        for number in range(3):
            await kenko.ask(f"{number}", "to.apps")
        first, _ = await app.next("message"), await app.next("message")
        await app.silence()
        await app.send({"type": "ack", "data": {"id": first["id"]}})
        assert (await app.next("message"))["content"] == "2"


# Overload


async def test_an_overloaded_application_is_paused_and_goes_on(tmp_path: Path) -> None:
    """Over `queue_size`, not at it; in order, and nothing is lost."""
    async with (
        running_kenko(tmp_path, "queue_size = 4", more=TO_APPS) as kenko,
        kenko.app(capabilities=["ack"], concurrency=2) as app,
    ):
        for number in range(4):
            await kenko.ask(f"{number}", "to.apps")
        got = [await app.next("message"), await app.next("message")]
        await app.silence()
        await kenko.ask("4", "to.apps")
        assert await app.next("pause") == {"reason": "overload"}
        await app.send({"type": "ack", "data": {"id": got[0]["id"]}})
        await app.silence()
        assert (await kenko.http.post(f"/api/kenko/apps/{app.id}/pause")).status_code == 409
        await app.send({"type": "ack", "data": {"id": got[1]["id"]}})
        await app.next("start")
        contents = [message["content"] for message in got]
        while len(contents) < 5:
            message = await app.next("message")
            contents.append(message["content"])
            await app.send({"type": "ack", "data": {"id": message["id"]}})
        assert contents == ["0", "1", "2", "3", "4"]


# Tasks


async def test_an_application_works_on_tasks(kenko: Kenko) -> None:
    """A task is a message with `task`; the answer is its result."""
    async with kenko.app(capabilities=["task"], task_types=["forecast"]) as app:
        body = {"task_type": "forecast", "params": {"city": "Delft"}}
        task = (await kenko.http.post("/api/v1/tasks", json=body)).json()
        message = await app.next("message")
        assert message["content"] == '{"city":"Delft"}'
        asked = {"task_id": task["task_id"], "task_type": "forecast", "params": {"city": "Delft"}}
        assert message["task"] == asked
        await app.say("Rain", reply_to=message["id"])
        await app.silence()
        path = f"/api/v1/tasks/{task['task_id']}"
        done = (await kenko.http.get(path)).json()
        assert (done["state"], done["result"]) == ("completed", {"content": "Rain"})
        await app.say("Sun", reply_to=message["id"])
        await app.frame()
        assert (await kenko.http.get(path)).json()["result"] == {"content": "Rain"}


async def test_a_task_of_another_type_is_not_for_it(kenko: Kenko) -> None:
    """It waits for somebody who does it."""
    async with kenko.app(capabilities=["task"], task_types=["forecast"]) as app, kenko.app():
        body: dict[str, Any] = {"task_type": "other", "params": {}, "text": "please"}
        await kenko.http.post("/api/v1/tasks", json=body)
        await app.silence()
        async with kenko.app(capabilities=["task", "ack"]) as any_type:
            message = await any_type.next("message")
            assert message["content"] == "please"
            await any_type.say("done", reply_to=message["id"])
            await any_type.silence()
            task_id = message["task"]["task_id"]
            done = (await kenko.http.get(f"/api/v1/tasks/{task_id}")).json()
            assert done["state"] == "completed"


async def test_a_task_that_is_cancelled_is_told(kenko: Kenko) -> None:
    """By an error about its message; the slot is free when the application has answered."""
    async with kenko.app(capabilities=["task"], concurrency=1) as app:
        tasks: list[str] = []
        for _ in range(2):
            body: dict[str, Any] = {"task_type": "forecast", "params": {}}
            tasks.append((await kenko.http.post("/api/v1/tasks", json=body)).json()["task_id"])
        message = await app.next("message")
        assert message["task"]["task_id"] == tasks[0]
        cancelled = await kenko.http.post(f"/api/v1/tasks/{tasks[0]}/cancel")
        assert cancelled.status_code == 200
        told = await app.next("error")
        assert (told["code"], told["ref"]) == ("cancelled", message["id"])
        await app.silence()
        await app.say("too late", reply_to=message["id"])
        following = await app.next("message")
        assert following["task"]["task_id"] == tasks[1]
        shown = (await kenko.http.get(f"/api/v1/tasks/{tasks[0]}")).json()
        assert shown["state"] == "cancelled"
        await app.say("sunny", reply_to=following["id"])
        await app.silence()


async def test_a_task_that_was_not_sent_is_cancelled_silently(kenko: Kenko) -> None:
    """There is nothing to tell; one that was sent is told of also while it is paused."""
    async with kenko.app(capabilities=["task", "ack"], concurrency=1) as app:
        body: dict[str, Any] = {"task_type": "forecast", "params": {}}
        first = (await kenko.http.post("/api/v1/tasks", json=body)).json()["task_id"]
        second = (await kenko.http.post("/api/v1/tasks", json=body)).json()["task_id"]
        message = await app.next("message")
        await kenko.http.post(f"/api/v1/tasks/{second}/cancel")
        await app.silence()
        await kenko.http.post(f"/api/kenko/apps/{app.id}/pause")
        await app.next("pause")
        await kenko.http.post(f"/api/v1/tasks/{first}/cancel")
        assert (await app.next("error"))["ref"] == message["id"]


async def test_what_is_not_json_reaches_an_application(tmp_path: Path) -> None:
    """Text as its content, bytes in Base64, and the type beside it; chat that is text, too."""
    async with running_kenko(tmp_path / "hub", more=TO_APPS) as kenko, kenko.app() as app:
        for kind, media_type, content in (
            ("hubbub.event.v1", "text/plain", '{"text": "hi"}'),
            (CHAT, "text/plain", '{"text": "hi"}'),
            (CHAT, "image/png", "eyJ0ZXh0IjogImhpIn0="),
        ):
            answer = await kenko.http.post(
                "/api/v1/envelopes",
                content=b'{"text": "hi"}',
                headers={
                    "content-type": media_type, "ce-specversion": "1.0", "ce-type": kind,
                    "ce-subject": "to.apps",
                },
            )  # fmt: skip
            assert answer.status_code == 202, answer.text
            data = await app.next("message")
            assert (data["content"], data["content_type"]) == (content, media_type)
