"""Transforms of routes, from the hook to the endpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hubbub import Converter, Envelope, Reject, Route, Transform, hookimpl
from hubbub.core import Core
from hubbub.envelope import encode_json
from hubbub.errors import ConfigError, PluginError, RouteError
from hubbub.switching import disable
from hubbub.testing import FakeClock, RecordingEndpoint, counted, running_hub, settle
from hubbub.transforms import MAX_STEPS, Transforms, steps_of
from hubbub.values import Delivery
from tests.hub.web.conftest import FAST, serving

Made = Callable[[Envelope], Envelope | None]
ROUTE = '[[routes]]\nname = "r"\nmatch = "a.>"\nto = ["plugin.x"]\ntransform = "{}"\nattempts = 2\n'


def plus(argument: str) -> Made:
    """Add a number to the data; `nothing` takes the envelope out."""
    if argument == "nothing":
        return lambda envelope: None
    number = int(argument)
    return lambda envelope: envelope.replace(data=encode_json(_number(envelope) + number))


def _number(envelope: Envelope) -> int:
    number = envelope.json()
    if not isinstance(number, int):
        raise TypeError("no number")
    return number


def refuse(argument: str) -> Made:
    def run(envelope: Envelope) -> Envelope | None:
        raise Reject(argument)

    return run


def to_last(envelope: Envelope) -> Envelope:
    return envelope.replace(type="last.v1")


def forge(argument: str) -> Made:
    return lambda envelope: Envelope.new(
        source="forged", subject=f"{envelope.subject}.more", type=argument, data=envelope.data,
        id="forged", hops=0,
    )  # fmt: skip


class Plugin:
    """Offers transforms, and notes what became of deliveries."""

    def __init__(self) -> None:
        self.ended: list[tuple[str, str | None, str | None]] = []

    @hookimpl
    def transforms(self) -> list[Transform]:
        nonsense = Transform("nonsense", lambda _: lambda _: "text")  # type: ignore[arg-type,return-value]
        return [Transform("plus", plus), Transform("refuse", refuse), Transform("forge", forge),
                nonsense]  # fmt: skip

    @hookimpl
    def after_delivery(self, delivery: Delivery) -> None:
        assert delivery.outcome is not None
        self.ended.append((delivery.outcome, delivery.reason, delivery.last_error))


async def run_one(
    tmp_path: Path,
    clock: FakeClock,
    transform: str,
    data: object = 1,
    accepts: tuple[str, ...] = (),
) -> tuple[RecordingEndpoint, Plugin, float]:
    """Publish one envelope through a route with a transform."""
    plugin = Plugin()
    async with running_hub(
        tmp_path / "hub", ROUTE.format(transform), clock=clock, plugins={"p": plugin}
    ) as core:
        taker = RecordingEndpoint("plugin.x", accepts=accepts)
        core.attach(taker)
        sent = Envelope.new(source="plugin.test", subject="a.b", type="native.v1", data=data)
        await core.publish(sent)
        await settle()
        for _ in range(6):
            await clock.advance(60.0)
        return taker, plugin, counted(core, "hubbub_plugin_errors_total", plugin="p")


async def test_steps_run_in_order_before_the_endpoint_has_it(
    tmp_path: Path, clock: FakeClock
) -> None:
    """Its id, source and trace stay, whatever a step makes."""
    taker, plugin, _ = await run_one(
        tmp_path, clock, "plus:1 | plus:10 | forge:other.v1", accepts=("other.v1",)
    )
    (taken,) = taker.taken
    assert (taken.json(), taken.type, taken.subject) == (12, "other.v1", "a.b.more")
    assert (taken.source, taken.hops) == ("plugin.test", 1)
    assert taken.id != "forged"
    assert taken.trace_id
    assert plugin.ended == [("delivered", None, None)]


@pytest.mark.parametrize(
    ("transform", "data", "ended", "errors"),
    [
        ("plus:nothing", 1, ("filtered", "transform", None), 0),
        ("plus:1 | plus:nothing | plus:2", 1, ("filtered", "transform", None), 0),
        ("refuse:too old", 1, ("dead", "rejected", "too old"), 0),
        ("plus:1", "text", ("dead", "transform: TypeError", "transform: TypeError"), 2),
        ("nonsense:", 1, ("dead", "transform: TypeError", "transform: TypeError"), 2),
    ],
)  # fmt: skip
async def test_ends(
    tmp_path: Path,
    clock: FakeClock,
    transform: str,
    data: object,
    ended: tuple[str, str, str | None],
    errors: int,
) -> None:
    """Nothing is filtered, a word is a word, a mistake fails each attempt and is counted."""
    taker, plugin, counts = await run_one(tmp_path, clock, transform, data)
    assert not taker.taken
    assert (plugin.ended, counts) == ([ended], errors)


@pytest.mark.parametrize(
    ("transform", "said"),
    [
        ("lua:trim.lua", "no plugin offers the transform 'lua'; known are forge, nonsense"),
        ("plus:x", "cannot be made: ValueError"),
        ("plus:1 | plus", "should be 'kind:argument'"),
    ],
)
async def test_a_route_whose_transform_cannot_be_made_is_refused(
    tmp_path: Path, transform: str, said: str
) -> None:
    """At start with the line of hub.toml, later with the name of the route."""
    with pytest.raises(ConfigError, match=r"hub\.toml:") as refused:
        async with running_hub(tmp_path / "hub", ROUTE.format(transform), plugins={"p": Plugin()}):
            pass
    assert said in str(refused.value)
    async with running_hub(tmp_path / "other", plugins={"p": Plugin()}) as core:
        with pytest.raises(RouteError, match="'r'"):
            core.table.put(Route(name="r", match="a.>", to=("plugin.x",), transform=transform))


async def test_routes_stay_when_their_plugin_is_off(tmp_path: Path, clock: FakeClock) -> None:
    """What they take is dead with a reason, also after a restart; it can be replayed later."""
    toml = ROUTE.format("plus:1")
    plugin = Plugin()
    async with running_hub(tmp_path / "hub", toml, clock=clock, plugins={"p": plugin}) as core:
        taker = RecordingEndpoint("plugin.x")
        core.attach(taker)
        found = core.plugins.get("p")
        assert found is not None
        await disable(core, found, by="test")
        await core.publish(Envelope.new(source="plugin.test", subject="a.b", data=1))
        await settle()
        assert not taker.taken
        assert counted(core, "hubbub_deliveries_total", outcome="dead") == 1
        # A route over the API may name it too, while nobody can say that it does not exist.
        core.table.put(Route(name="s", match="c", to=("plugin.x",), transform="plus:3"))


async def test_a_dry_run_shows_what_it_makes(tmp_path: Path) -> None:
    """And what goes wrong, however often somebody tries: nothing is counted against the plugin."""
    async with serving(
        tmp_path / "hub", FAST + ROUTE.format("plus:1"), plugins={"p": Plugin()}
    ) as served:
        served.core.attach(RecordingEndpoint("plugin.x"))

        async def tried(data: object) -> dict[str, object]:
            answer = await served.client.post(
                "/api/v1/routes/test", json={"subject": "a.b", "data": data}
            )
            assert answer.status_code == 200
            (target,) = answer.json()["deliveries"]
            assert target["transform"] == "plus:1"
            return dict(target)

        assert (await tried(41))["transformed"] == {
            "subject": "a.b", "type": "hubbub.event.v1", "data": 42,
        }  # fmt: skip
        for _ in range(4):
            target = await tried("text")
            assert target["transformed"] is None
            assert target["reason"] == "transform: TypeError: no number"
        plugin = served.core.plugins.get("p")
        assert plugin is not None
        assert plugin.state == "up"


def test_kinds_have_one_owner_and_a_name_that_can_be_written() -> None:
    """The second one is refused, and names the first."""
    transforms = Transforms()
    transforms.add(Transform("mask", plus), plugin="a")
    with pytest.raises(PluginError, match="from plugin 'a'"):
        transforms.add(Transform("mask", plus), plugin="b")
    with pytest.raises(PluginError, match="letters"):
        transforms.add(Transform("two words", plus), plugin="b")
    transforms.remove_plugin("a")
    transforms.add(Transform("mask", plus), plugin="b")


def test_number_of_steps_has_a_limit() -> None:
    """The limit itself is read, one more is not; an argument may hold anything but ` | `."""
    assert steps_of(" | ".join(["a:b:c d|e"] * MAX_STEPS)) == [("a", "b:c d|e")] * MAX_STEPS
    with pytest.raises(RouteError, match="limit is 8"):
        steps_of(" | ".join(["a:b"] * (MAX_STEPS + 1)))


async def test_a_converter_after_a_transform(tmp_path: Path, core: Core) -> None:
    """A transform may make a type that only then is converted to one the endpoint takes."""
    core.transforms.add(Transform("forge", forge), plugin="p")
    core.conversions.add(Converter("middle.v1", "last.v1", to_last), plugin="p")
    taker = RecordingEndpoint("plugin.x", accepts=("last.v1",))
    core.attach(taker)
    core.table.put(Route(name="r", match="a.>", to=("plugin.x",), transform="forge:middle.v1"))
    await core.publish(Envelope.new(source="plugin.test", subject="a.b", type="first.v1"))
    assert [taken.type for taken in await taker.wait_for(1)] == ["last.v1"]
