"""What an operation takes and gives, for the description of the API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

__all__ = ["NOTHING", "Parameter", "Spec"]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a query, header or part of a path, as the description of the API shows it.

    Attributes:
        schema: JSON Schema of its value.
        repeated: Whether it may be given several times.
    """

    name: str
    says: str
    schema: Mapping[str, object]
    place: Literal["query", "header", "path"] = "query"
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class Spec:
    """What the description of the API says about an operation beside its path.

    Attributes:
        answers: Type of the answer by status; None for one without a body.
        body: Type of the body; None for none. Here and in `answers` a text is another media type
            than JSON, and several in a tuple are alternatives.
        media: Media types that a body of such a type may have.
        body_needed: Whether an empty body is refused.
        problems: Statuses of errors that are this operation's own; 401 and the like come by
            themselves.
    """

    answers: Mapping[int, object] = field(default_factory=dict[int, object])
    body: object = None
    body_needed: bool = True
    media: tuple[str, ...] = ("application/json",)
    parameters: tuple[Parameter, ...] = ()
    problems: tuple[int, ...] = ()


NOTHING: Final = Spec()
"""For an operation that takes and gives nothing."""
