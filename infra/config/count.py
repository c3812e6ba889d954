"""Numbers of things, written as people write them: `20B`, `512k`."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Annotated, Any

# Digits are ASCII, a leading zero could mean octal, and an exponent of three digits is beyond any count.
_NUMBER = r"[-+]?(?:(?:0|[1-9][0-9]*(?:_[0-9]+)*)(?:\.[0-9]*)?|\.[0-9]+)(?:e[-+]?[0-9]{1,2})?"
_SPELLING = re.compile(rf"({_NUMBER})([kmbgt]?)")
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9, "t": 10**12}


class Count(int):
    """A number of things, also written `20B`, `512k`, `1.5M`, `1e9`, `100_000` (k 1e3, M 1e6, B or G 1e9, T 1e12)."""

    def __new__(cls, value: int | float | str = 0) -> Count:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError(f"expected a count, got {value!r}")
        spelling = _SPELLING.fullmatch(str(value).strip().lower())
        exact = Fraction(spelling[1].replace("_", "")) * _UNITS[spelling[2]] if spelling else Fraction(-1)
        if not 0 <= exact < 2**63 or exact.denominator != 1:
            raise ValueError(f"expected a whole number below 2**63 such as 20B, 512k, 1.5M or 100_000, got {value!r}")
        return super().__new__(cls, int(exact))

    @property
    def short(self) -> str:
        """The same number in few characters: 20B, 512k, 32768."""
        units = [(size, unit) for unit, size in _UNITS.items() if self and self % size == 0 and unit != "g"]
        size, unit = max(units, default=(1, ""))
        return f"{self // size}{unit.upper() if unit != 'k' else unit}"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """How pydantic makes one: by calling the class."""
        from pydantic import PlainValidator

        return handler.generate_schema(Annotated[Any, PlainValidator(cls)])
