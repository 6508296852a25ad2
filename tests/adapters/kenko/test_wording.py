"""What the hub says to clients, in their language."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hubbub_kenko import wire
from hubbub_kenko.session import State
from hubbub_kenko.wording import preferred, worded
from tests.adapters.kenko.serving import Kenko, registration, running_kenko

EN = {
    "invalid_name": "name must be a non-empty string of at most 128 characters",
    "not_running": "message refused in state IDLE",
    "no_route": "no route takes this message",
    "admin": "paused by an administrator",
}
ZH = {
    "invalid_name": "name 必须是 1 到 128 个字符的非空字符串",
    "not_running": "状态 IDLE 下不接受消息",
    "no_route": "没有路由接收此消息",
    "admin": "已由管理员暂停",
}


@pytest.mark.parametrize(("lang", "words"), [("en-GB", EN), ("zh-CN", ZH), ("fr", ZH)])
async def test_an_application_is_told_in_its_language(
    kenko: Kenko, lang: str, words: dict[str, str]
) -> None:
    """That of its registration; refusals, errors and pauses; what nobody has is in the default."""
    async with kenko.client() as app:
        await app.send(registration(name="", lang=lang))
        said = await app.next("register")
        assert (said["code"], said["message"]) == ("invalid_name", words["invalid_name"])
        await app.register(lang=lang)
        await app.say("hello", target={"address": "nobody.there"})
        said = await app.next("error")
        assert (said["code"], said["message"]) == ("no_route", words["no_route"])
        assert (await kenko.http.post(f"/api/kenko/apps/{app.id}/pause")).status_code == 200
        assert await app.next("pause") == {"reason": "admin", "message": words["admin"]}
        await app.say("hello", reply_to="m")
        said = await app.next("error")
        assert said == {"code": "not_running", "message": words["not_running"], "ref": "m"}


async def test_the_handshake_may_name_it(kenko: Kenko) -> None:
    """Before the registration; the registration's own holds from there on."""
    headers = {"Accept-Language": "en;q=0.5, zh-CN, *;q=0.1"}
    async with kenko.client(additional_headers=headers) as app:
        await app.say("too early")
        assert (await app.next("error"))["message"] == "请先注册"
        await app.register(lang="en")
        await app.send(registration(lang="zh-CN"))  # a second one is ignored completely
        await app.send({"type": "message", "data": {"content": 1}})
        said = (await app.next("error"))["message"]
        assert said.startswith("the data of the frame do not fit: data of 'message'")


async def test_on_socketio_too(kenko: Kenko) -> None:
    """By the registration, or by the argument of `auth`."""
    async with kenko.event_client() as app:
        await app.emit("auth", {"name": "", "lang": "zh"})
        assert await app.next("auth") is False
        assert (await app.next("register"))["message"] == ZH["invalid_name"]


async def test_who_names_none_is_told_as_ever(kenko: Kenko) -> None:
    """In English, with what exactly is wrong; a pause has its reason alone."""
    async with kenko.client() as app:
        await app.send(registration(name="x" * 129))
        assert (await app.next("register"))["message"] == "name has over 128 characters"
        await app.register()
        await kenko.http.post(f"/api/kenko/apps/{app.id}/pause")
        assert await app.next("pause") == {"reason": "admin"}


async def test_an_operator_may_change_the_words(tmp_path: Path) -> None:
    """Over the API, for one language."""
    async with running_kenko(tmp_path / "hub") as kenko, kenko.app(lang="de") as app:
        put = await kenko.http.put("/api/i18n/de", json={"kenko.error.no_route": "Niemand da."})
        assert put.status_code == 200
        await app.say("hallo", target={"address": "nobody.there"})
        assert (await app.next("error"))["message"] == "Niemand da."


def test_what_has_no_words_stays() -> None:
    """Frames of other types, a success, and what no catalogue has."""
    asked: list[Any] = []

    def nobody(key: str, args: Any, lang: str) -> None:
        asked.append((key, dict(args), lang))

    for frame in (wire.START, wire.PONG, wire.registered("app_1"), wire.auth_reply(True)):
        assert worded(frame, "en", nobody, State.IDLE) is frame
    assert asked == []
    failed = wire.error("bad_data", "no content", "m")
    assert worded(failed, "en", nobody, State.RUNNING) is failed
    args = {"detail": "no content", "state": "RUNNING"}
    assert asked == [("kenko.error.bad_data", args, "en")]


@pytest.mark.parametrize(
    ("header", "lang"),
    [
        ("de", "de"),
        ("de-AT, en;q=0.9", "de-AT"),
        ("en;q=0.2, de;q=0.8 , fr;q=0.8", "de"),
        ("*", None),
        ("", None),
        ("de;q=0", None),
        ("de;q=x, en", "en"),
        ("x" * 100, "x" * 64),
        ("é;;;q=,", None),
    ],
)
def test_the_preferred_language(header: str, lang: str | None) -> None:
    """The best of the header, the first of equals; nonsense is none."""
    assert preferred([(b"host", b"x"), (b"accept-language", header.encode("latin-1"))]) == lang
