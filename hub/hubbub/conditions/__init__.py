"""What a route's `where` and `where_cel` say, compiled once into closures.

`paths` says where to look, `operators` what must stand there, `cel` is the other way to say both,
and `where` puts them together. A condition never raises when it is asked, and decodes the data
only if it looks inside.
"""

from hubbub.conditions.cel import MAX_CEL, MAX_OPERATORS
from hubbub.conditions.operators import MAX_OPERAND_DEPTH
from hubbub.conditions.paths import MISSING, compile_path
from hubbub.conditions.where import Condition, compile_where

__all__ = [
    "MAX_CEL",
    "MAX_OPERAND_DEPTH",
    "MAX_OPERATORS",
    "MISSING",
    "Condition",
    "compile_path",
    "compile_where",
]
