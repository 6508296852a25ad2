"""Data that is not JSON in both databases, beside data that is, and over a backup."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hubbub import Envelope, Route
from hubbub.cli.app import main
from hubbub.core import Core
from hubbub.errors import IdReusedError, InvalidError
from hubbub.intake import body_hash
from hubbub.store.reads import envelopes as reads
from hubbub.testing import RecordingEndpoint, running_hub
from hubbub.values import Principal

PNG = b"\x89PNG\r\n\x1a\n\0\xff"
ADMIN = Principal("admin", "api.admin", frozenset({"admin"}))


def image(**more: object) -> Envelope:
    """Return an envelope whose data is not JSON."""
    made = Envelope.new(source="t", subject="a", data=PNG, content_type="image/png", durable=True)
    return made.replace(**more)


async def stored(core: Core, envelope_id: str) -> tuple[bytes, str | None]:
    """Return the data of a stored envelope, and its type."""
    found = await core.read(lambda session: reads.one(session, envelope_id))
    assert found is not None
    return found.envelope.data, found.envelope.content_type


async def test_a_batch_keeps_each_under_its_type(core: Core) -> None:
    """Rows with and without the rare columns are one statement."""
    plain = Envelope.new(source="t", subject="a", data={"n": 1}, durable=True)
    batch = [plain, image(), plain, image(key="k", expires_us=2**60)]
    receipts = await core.router.publish_all(batch)
    kept = [await stored(core, receipt.id) for receipt in receipts]
    assert kept == [(b'{"n":1}', None), (PNG, "image/png")] * 2


async def test_what_waits_is_the_same_after_a_restart(
    tmp_path: Path, store_url: Callable[[Path], str]
) -> None:
    """And over a backup: it is handed over as it was published."""
    folder, copy = tmp_path / "var", tmp_path / "copy"
    url = store_url(folder)
    where = ["--set", f'store.url="{url}"']
    route = Route(name="r", match="a", to=("plugin.x",), hold_s=3600.0)
    async with running_hub(folder, store_url=url) as core:
        core.table.put(route)
        receipt = await core.publish(image())
        assert receipt.deliveries == 1
    assert main(["db", "backup", str(copy), *where]) == 0
    assert main(["db", "restore", str(copy), *where]) == 0
    async with running_hub(folder, store_url=url) as core:
        core.table.put(route)
        receiver = RecordingEndpoint("plugin.x")
        core.attach(receiver)
        (envelope,) = await receiver.wait_for(1)
        assert (envelope.data, envelope.content_type) == (PNG, "image/png")


async def test_a_repetition_has_the_same_type(core: Core) -> None:
    """The same id with the same bytes under another type is another body."""
    first = await core.router.publish(image(id="one"), principal=ADMIN)
    again = await core.router.publish(image(id="one"), principal=ADMIN)
    assert (again.id, first.id) == ("one", "one")
    with pytest.raises(IdReusedError):
        await core.router.publish(image(id="one", content_type="image/gif"), principal=ADMIN)


def test_the_hash_of_json_is_as_it_was() -> None:
    """Ids that were given before an update are known after it."""
    envelope = Envelope(source="s", subject="a", data=b"1")
    assert body_hash(envelope).hex() == "78048af1966a47d3462ddbed65ea8b45"
    assert body_hash(envelope) != body_hash(envelope.replace(content_type="text/plain"))


async def test_json_has_no_content_type(core: Core) -> None:
    """`new` sees to it; an envelope made otherwise is refused, and says why."""
    made = Envelope.new(source="t", subject="a", data=b"1", content_type="application/json")
    assert made.content_type is None
    with pytest.raises(InvalidError, match=r"Envelope\.new"):
        await core.publish(made.replace(content_type="text/json"))
    with pytest.raises(InvalidError, match="bytes"):
        Envelope.new(source="t", subject="a", data={"n": 1}, content_type="text/plain")
    with pytest.raises(InvalidError, match="media type"):
        await core.publish(made.replace(content_type="text"))
