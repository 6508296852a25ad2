"""Passwords, logins and signatures that are tried again and again."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import httpx2
import pytest
from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError
from websockets.exceptions import InvalidStatus
from websockets.http11 import Response

from hubbub.testing import FakeClock
from hubbub_octohub.accounts import HASHING, MAX_WAITING, Accounts
from tests.adapters.octohub.serving import SETTINGS, WAIT_S, Octohub, octohub
from tests.adapters.octohub.test_users import EMAIL, PASSWORD, add, log_in

LIMITS = f"""{SETTINGS}
login_failure_limit = 3
login_failure_limit_per_source = 5
login_failure_limit_per_user = 6
login_failure_window = "900s"
"""
SLOW = {"errcode": 1005, "errmsg": "请求过于频繁"}
FEW = f"""auth_failure_limit = 2
auth_failure_window = "60s"
{SETTINGS}"""


@asynccontextmanager
async def at(hub: Octohub, peer: str) -> AsyncGenerator[Octohub]:
    """The same hub, seen from another address of this machine."""
    transport = httpx2.AsyncHTTPTransport(local_address=peer)
    async with httpx2.AsyncClient(
        base_url=hub.hub.main.url, transport=transport, timeout=30
    ) as client:
        yield Octohub(hub.hub, client, hub.admin)


async def wrong(hub: Octohub, email: str = EMAIL) -> int:
    return (await log_in(hub, email, "wrong horse")).status_code


async def notes(hub: Octohub) -> list[dict[str, Any]]:
    """Return what the audit has of sources that were slowed down, once there is something."""
    async with asyncio.timeout(10):
        while True:
            answer = await hub.http.get("/api/v1/audit", headers=hub.admin)
            found = [one for one in answer.json()["items"] if one["act"] == "auth.slowed_down"]
            if found:
                return found
            await asyncio.sleep(0.01)


async def test_so_many_passwords_may_be_tried(tmp_path: Path) -> None:
    """Over `login_failure_limit` in `login_failure_window` not even the right one is looked at.

    It is audited once, and another source is not touched.
    """
    clock = FakeClock()
    async with octohub(tmp_path, LIMITS, clock=clock) as hub:
        await add(hub)
        assert [await wrong(hub) for _ in range(3)] == [400] * 3
        answer = await log_in(hub)
        assert (answer.status_code, answer.json()) == (429, SLOW)
        assert 1 <= int(answer.headers["retry-after"]) <= 300
        assert (await hub.http.post("/api/login/login", json={"email": EMAIL, "password": PASSWORD})
                ).status_code == 429  # fmt: skip
        async with at(hub, "127.0.0.2") as elsewhere:
            assert (await log_in(elsewhere)).status_code == 200
        (note,) = await notes(hub)
        assert (note["principal"], note["target"]) == ("127.0.0.1", "octohub_password")
        assert EMAIL in note["detail"]
        assert PASSWORD not in str(note)
        await clock.advance(301)
        assert (await log_in(hub)).status_code == 200
        assert [await wrong(hub) for _ in range(4)] == [400] * 3 + [429]


async def test_letters_of_another_case_are_the_same_user(tmp_path: Path) -> None:
    """As the database looks for it; otherwise each spelling would have attempts of its own."""
    async with octohub(tmp_path, LIMITS) as hub:
        await add(hub)
        spelt = [EMAIL, EMAIL.upper(), EMAIL.title(), "A@example.ORG"]
        assert [await wrong(hub, email) for email in spelt] == [400] * 3 + [429]


async def test_a_user_who_is_not_there_is_limited_alike(tmp_path: Path) -> None:
    """So that an answer does not tell who is."""
    async with octohub(tmp_path, LIMITS) as hub:
        nobody = "nobody@example.org"
        assert [await wrong(hub, nobody) for _ in range(4)] == [400] * 3 + [429]
        odd = ["a\0b@example.org", "x" * 10_000]
        assert [await wrong(hub, email) for email in odd] == [400] * 2


async def test_one_source_and_many_users_many_sources_and_one_user(tmp_path: Path) -> None:
    """Both have limits, `login_failure_limit_per_source` and `login_failure_limit_per_user`.

    Who has logged in somewhere does so there again, whoever fails.
    """
    async with octohub(tmp_path, LIMITS) as hub:
        await add(hub)
        assert (await log_in(hub)).status_code == 200
        others = [await wrong(hub, f"user{number}@example.org") for number in range(6)]
        assert others == [400] * 5 + [429]
        assert (await log_in(hub)).status_code == 200
        tried: list[int] = []
        for number in range(2, 6):
            async with at(hub, f"127.0.0.{number}") as elsewhere:
                tried += [await wrong(elsewhere) for _ in range(2)]
        assert tried == [400] * 6 + [429] * 2
        assert (await log_in(hub)).status_code == 200
        async with at(hub, "127.0.0.9") as new:
            assert (await log_in(new)).status_code == 429


async def test_a_login_that_holds_keeps_the_way_open(tmp_path: Path) -> None:
    """Also over a restart of the hub, which knows no place any more."""
    secret = f'{LIMITS}jwt_secret = "{"s" * 32}"\n'
    async with octohub(tmp_path, secret) as hub:
        await add(hub)
        token = (await log_in(hub)).json()["data"]["token"]
    async with octohub(tmp_path, secret) as hub:
        headers = {"Authorization": f"Bearer {token}"}
        assert (await hub.http.get("/user/info", headers=headers)).status_code == 200
        for number in range(5):
            await wrong(hub, f"user{number}@example.org")
        assert await wrong(hub, "user9@example.org") == 429
        assert (await log_in(hub)).status_code == 200


class CountingHasher(PasswordHasher):
    """How many passwords were looked at, and how many at once."""

    def __init__(self) -> None:
        super().__init__(time_cost=1, memory_cost=8192, parallelism=1)
        self.number = 0

    def verify(self, hash: str | bytes, password: str | bytes) -> Any:  # noqa: A002
        self.number += 1
        return super().verify(hash, password)


async def test_attempts_at_the_same_time_are_no_more_than_the_limit(tmp_path: Path) -> None:
    """However many come at once, so many passwords are looked at."""
    async with octohub(tmp_path, LIMITS) as hub:
        await add(hub)
        counting = CountingHasher()
        accounts = accounts_of(hub)
        accounts._hasher = counting
        answers = await asyncio.gather(*(wrong(hub) for _ in range(40)))
        assert sorted(answers) == [400] * 3 + [429] * 37
        assert counting.number == 3
        for _ in range(5):
            await wrong(hub)
        assert counting.number == 3


def accounts_of(hub: Octohub) -> Accounts:
    adapter: Any = hub.core.adapters.get("octohub").adapter
    accounts: Accounts = adapter._api.room.accounts
    return accounts


class WaitingHasher(PasswordHasher):
    """Looks at passwords once it is let, and says how many it looks at at once."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0
        self.let = threading.Event()

    def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:  # noqa: A002
        self.number += 1
        self.let.wait(WAIT_S)
        raise VerifyMismatchError


async def test_few_passwords_are_hashed_at_once(tmp_path: Path) -> None:
    """HASHING at once, MAX_WAITING of which the rest waits; one more login is 429 at once."""
    async with octohub(tmp_path) as hub:
        waiting = WaitingHasher()
        accounts_of(hub)._hasher = waiting
        logins = [
            asyncio.create_task(wrong(hub, f"user{number}@example.org"))
            for number in range(MAX_WAITING + 1)
        ]
        try:
            done, _ = await asyncio.wait(
                logins, timeout=WAIT_S, return_when=asyncio.FIRST_COMPLETED
            )
            assert [each.result() for each in done] == [429]
            assert waiting.number == HASHING
        finally:
            waiting.let.set()
        answers = await asyncio.gather(*logins)
        assert set(answers) <= {400, 429}  # over the limit of this source, by then
        assert waiting.number <= MAX_WAITING


async def test_logins_of_one_user_at_the_same_time_all_succeed(tmp_path: Path) -> None:
    """What is under way counts only as long as it is."""
    async with octohub(tmp_path, SETTINGS) as hub:
        await add(hub)
        accounts_of(hub)._hasher = CountingHasher()
        answers = await asyncio.gather(*(log_in(hub) for _ in range(30)))
        assert {answer.status_code for answer in answers} == {200}


async def test_wrong_logins_are_slowed_down_and_valid_ones_taken(tmp_path: Path) -> None:
    """On the original's paths with its code, on ours as a problem."""
    async with octohub(tmp_path, FEW) as hub:
        await add(hub)
        token = (await log_in(hub)).json()["data"]["token"]
        bad, good = ({"Authorization": f"Bearer {one}"} for one in ("a.b.c", token))
        assert (await hub.http.get("/user/info", headers=bad)).status_code == 401
        assert (await hub.http.get("/api/octohub/tasks", headers=bad)).status_code == 401
        for path in ("/user/info", "/user/ws"):
            refused = await hub.http.get(path, headers=bad)
            assert (refused.status_code, refused.json()) == (429, SLOW)
            assert int(refused.headers["retry-after"]) >= 1
        ours = await hub.http.get("/api/octohub/tasks", headers=bad)
        assert (ours.status_code, ours.json()["code"]) == (429, "too_many_failures")
        assert int(ours.headers["retry-after"]) >= 1
        assert (await hub.http.get("/user/info", headers=good)).status_code == 200
        assert (await hub.http.get("/user/info")).status_code == 401  # none is no attempt


async def denied(hub: Octohub, url: str) -> Response:
    """Return the answer to a handshake that fails."""
    with pytest.raises(InvalidStatus) as failed:
        async with hub.peer(url):
            pass
    return failed.value.response


async def test_wrong_signatures_are_slowed_down_and_valid_ones_taken(tmp_path: Path) -> None:
    """Of requests for an address, and of addresses."""
    async with octohub(tmp_path, FEW) as hub:
        answers = [await hub.asked(**{"X-Signature": "x"}) for _ in range(4)]
        assert [one.status_code for one in answers] == [401] * 2 + [429] * 2
        assert answers[-1].json() == SLOW
        assert int(answers[-1].headers["retry-after"]) >= 1
        url = await hub.url()
        responses = [await denied(hub, f"{url}0") for _ in range(3)]
        assert [one.status_code for one in responses] == [401, 401, 429]
        assert int(responses[-1].headers["retry-after"]) >= 1
        async with hub.peer(url) as node:
            await node.until(type="connected")


@pytest.mark.parametrize("name", ["limit", "limit_per_source", "limit_per_user"])
def test_limits_of_logins_have_a_range(name: str) -> None:
    """No limit at all is none of them."""
    from hubbub_octohub.config import OctohubSettings

    for value in (0, 1_000_001):
        with pytest.raises(ValueError, match=f"login_failure_{name}"):
            OctohubSettings.model_validate({f"login_failure_{name}": value})
