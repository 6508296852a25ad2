"""Endpoints that read a table: rows written in the commit of an envelope are their taking of it."""

from __future__ import annotations

from collections.abc import Sequence

from hubbub.ports import Row
from hubbub.preparing import NotForItError, PrepareError, Preparer
from hubbub.values import Delivery, Endpoint

__all__ = ["Recording"]


class Recording:
    """Asks endpoints for such rows."""

    def __init__(self, preparer: Preparer) -> None:
        self._preparer = preparer

    def rows(self, endpoint: Endpoint, delivery: Delivery) -> Sequence[Row] | None:
        """Return the rows that are an endpoint's taking of this delivery, as it takes it."""
        try:
            prepared = self._preparer.prepare(delivery.envelope, delivery.transform, endpoint)
        except (NotForItError, PrepareError):  # a courier will find the same, and end it by that
            return None
        return endpoint.record(prepared)
