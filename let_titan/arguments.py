"""Types of argparse's numbers, each of which says its range. Standard library only."""

import math
from argparse import ArgumentTypeError


def count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ArgumentTypeError(f"{number} must be at least 1")
    return number


def positive(text: str) -> float:
    number = float(text)
    if not (math.isfinite(number) and number > 0):
        raise ArgumentTypeError(f"{number} must be a finite number above 0")
    return number


def fraction(text: str) -> float:
    number = float(text)
    if not 0 < number <= 1:
        raise ArgumentTypeError(f"{number} must be above 0 and at most 1")
    return number
