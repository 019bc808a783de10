"""data.weights: how often each of The Pile's sets is read, and whether the data know such sets."""

import itertools
import logging
import math
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress

from let_titan.data.documents import BadLine, parse
from let_titan.data.lines import Line
from let_titan.errors import ConfigError

LOOKED_AT = 5000
"""Lines of the first file in which each set is looked for: of The Pile's, some 30 MB."""

logger = logging.getLogger()  # the root, as torchtitan's


def weights_of(texts: list[str]) -> dict[str, float]:
    """Reads data.weights; refuses a set named twice, whose last weight would silently win."""
    found: dict[str, float] = {}
    for name, weight in map(parse_weight, texts):
        if name in found:
            raise ConfigError(f"data.weights names {name!r} twice: give each set one weight.")
        found[name] = weight
    return found


def parse_weight(text: str) -> tuple[str, float]:
    """Reads "PILE_SET_NAME:WEIGHT"."""
    name, colon, number = text.rpartition(":")
    try:
        weight = float(number)
    except ValueError:
        weight = math.nan
    if not colon or not name or not (math.isfinite(weight) and weight >= 0):
        raise ConfigError(
            f"data.weights has {text!r}: write a set's name, a colon and a number >= 0, as in "
            '"Github:0".'
        )
    return name, weight


def warn_of_unknown_sets(
    weights: Iterable[str], where: str, lines: Iterable[Line], limit: int
) -> None:
    """Warns of sets to which none of a file's first documents belongs.

    A misspelt name has no effect: the set that was meant keeps its weight of 1.

    Args:
        weights: the names.
        where: the file.
        lines: from its first on.
        limit: bytes of the longest document.
    """
    found = Counter[str]()
    for line in itertools.islice(lines, LOOKED_AT):
        with suppress(BadLine):
            found[parse(line, limit).pile_set_name] += 1
    unknown = sorted(set(weights) - set(found))
    if unknown:
        names = ", ".join(repr(name) for name in sorted(found) if name) or "they have none"
        logger.warning(
            f"data.weights names {', '.join(map(repr, unknown))}, and none of the first "
            f"{found.total():,} documents of {where} is of that set ({names}): a document's is its "
            "meta.pile_set_name."
        )
