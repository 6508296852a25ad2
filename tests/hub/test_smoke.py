"""A message goes in, is routed, and is taken."""

from __future__ import annotations

from hubbub import Envelope, Route
from hubbub.core import Core
from hubbub.store.reads import deliveries, envelopes
from hubbub.testing import RecordingEndpoint, settle
from hubbub.values import DeliveryState, Outcome


async def test_a_routed_envelope_is_taken_and_its_outcome_stored(core: Core) -> None:
    """One route, one endpoint: delivered, once."""
    recorder = RecordingEndpoint("plugin.recorder")
    core.attach(recorder)
    core.table.put(Route(name="orders", match="orders.>", to=("plugin.recorder",)))
    receipt = await core.publish(
        Envelope.new(source="api.test", subject="orders.eu", data={"n": 1})
    )
    assert receipt.outcome == "accepted"
    (taken,) = await recorder.wait_for(1)
    assert taken.json() == {"n": 1}
    await settle()
    await core.journal.flush()
    stored = await core.read(lambda session: envelopes.one(session, receipt.id))
    assert stored is not None
    (row,) = await core.read(lambda session: deliveries.of_envelope(session, stored.seq))
    assert (row.state, row.outcome) == (DeliveryState.DONE, Outcome.DELIVERED)
