"""Pools whose members have some of the envelopes already."""

from __future__ import annotations

from hubbub import Envelope, Route
from hubbub.core import Core
from hubbub.testing import RecordingEndpoint, settle


async def test_what_another_left_at_the_head_goes_to_who_was_free_all_along(core: Core) -> None:
    """The head was for one member only; when it is taken the next one is for the other."""
    one, other = RecordingEndpoint("plugin.one"), RecordingEndpoint("plugin.other")
    busy = core.attach(one)
    core.attach(other)
    busy.slots = 0
    core.table.put(Route(name="a1", match="a", to=("plugin.other",)))
    core.table.put(Route(name="b1", match="b", to=("plugin.one",)))
    core.table.put(Route(name="pool", match="*", to=("plugin.one", "plugin.other"), deliver="one"))
    for subject in ("a", "b"):
        await core.publish(Envelope.new(source="t", subject=subject, durable=True))
    await settle()
    assert [envelope.subject for envelope in other.taken] == ["a"]
    busy.slots = 1
    await settle()
    assert sorted(envelope.subject for envelope in one.taken) == ["a", "b"]
    assert [envelope.subject for envelope in other.taken] == ["a", "b"]
