"""The values that keys may take. Standard library only."""

import math
from dataclasses import dataclass
from typing import Literal

from let_titan.errors import ConfigError

Layer = int | Literal["last", "middle"]
"""Of a teacher: the output of a block, from 1, or of the last one after the final norm."""


@dataclass(frozen=True)
class Range:
    """``low <= value <= high``; with ``above`` or ``below`` the end itself is left out.

    Attributes:
        also: one more number that is right, since it has a meaning of its own.
    """

    low: float
    high: float = math.inf
    above: bool = False
    below: bool = False
    also: float | None = None

    def __contains__(self, value: float) -> bool:
        if value == self.also:
            return True
        too_low = value <= self.low if self.above else value < self.low
        too_high = value >= self.high if self.below else value > self.high
        return not (math.isnan(value) or too_low or too_high)

    def __str__(self) -> str:
        words = f"above {self.low}" if self.above else f"at least {self.low}"
        if self.high < math.inf:
            words += f" and {'below' if self.below else 'at most'} {self.high}"
        elif self.below:
            words += " and finite"
        return words if self.also is None else f"{self.also}, or {words}"


COUNT = Range(1)
NOT_NEGATIVE = Range(0)
FRACTION = Range(0, 1)
FINITE = Range(0, math.inf, below=True)
POSITIVE = Range(0, math.inf, above=True, below=True)
BELOW_ONE = Range(0, 1, below=True)


def out_of_range(path: str, value: float, allowed: Range) -> ConfigError:
    return ConfigError(f"{path} = {value} is out of range: it must be {allowed}.")
