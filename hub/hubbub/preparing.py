"""What is done to an envelope before an endpoint is handed it.

First the transform of its route, then conversion to a type the endpoint takes; on a copy, at each
attempt.
"""

from __future__ import annotations

from typing import Final

from hubbub.conversion import Conversions
from hubbub.envelope import Envelope
from hubbub.errors import NotJsonError, Reject
from hubbub.transforms import Transforms
from hubbub.values import Endpoint, Outcome

__all__ = ["NotForItError", "PrepareError", "Preparer"]


class NotForItError(Exception):
    """The endpoint shall not get it: how its delivery ends, and why."""

    def __init__(self, outcome: Outcome, reason: str, detail: str | None = None) -> None:
        self.outcome: Final = outcome
        self.reason: Final = reason
        self.detail: Final = detail
        super().__init__(reason)


class PrepareError(Exception):
    """A plugin failed at it, which its fence has counted; the attempt fails with this reason."""

    def __init__(self, what: str, error: Exception) -> None:
        self.reason: Final = f"{what}: {type(error).__name__}"
        self.detail: Final = f"{self.reason}: {error}".rstrip(": ")
        super().__init__(self.detail)


class Preparer:
    """Transforms and converts."""

    def __init__(self, conversions: Conversions, transforms: Transforms) -> None:
        self._conversions = conversions
        self._transforms = transforms

    def prepare(self, envelope: Envelope, transform: str | None, endpoint: Endpoint) -> Envelope:
        """Return the envelope as an endpoint takes it.

        Raises:
            NotForItError: it shall not get it, or there is no way to a type it takes.
            PrepareError: a transform or a converter failed.
        """
        if transform is not None:
            envelope = self.transformed(envelope, transform)
        chain = self._conversions.chain(envelope.type, endpoint.accepts)
        if chain is None:
            raise NotForItError(Outcome.DEAD, "no_converter")
        for converter in chain:
            try:
                converted = converter.convert(envelope, endpoint)
            except NotJsonError as error:
                raise NotForItError(Outcome.DEAD, error.code, error.message) from error
            except Exception as error:
                raise PrepareError("converter", error) from error
            if converted is None:
                raise NotForItError(Outcome.FILTERED, "converter")
            envelope = converted
        return envelope

    def transformed(self, envelope: Envelope, transform: str) -> Envelope:
        """Return the envelope as a route's transform makes it.

        Raises:
            NotForItError: it does not go on, or nobody offers the transform any more.
            PrepareError: the transform failed.
        """
        run = self._transforms.get(transform)
        if run is None:
            raise NotForItError(Outcome.DEAD, "no_transform", f"nobody offers {transform!r}")
        try:
            given = run(envelope)
        except Reject as signal:
            raise NotForItError(Outcome.DEAD, "rejected", signal.reason) from signal
        except NotJsonError as error:
            raise NotForItError(Outcome.DEAD, error.code, error.message) from error
        except Exception as error:
            raise PrepareError("transform", error) from error
        if given is None:
            raise NotForItError(Outcome.FILTERED, "transform")
        return given
