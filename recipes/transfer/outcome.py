"""What came of the pairs: differences LET - baseline over seeds, with their intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from let_titan.compare.stats import paired_difference
from transfer.pairs import Curve, Pair, steps_to
from transfer.runs import Start


@dataclass(frozen=True)
class Later:
    """A student's fine-tuning on one domain.

    Attributes:
        curve: on the domain's validation set.
        seen_before, seen_after: loss on the domains learned first, before and after it.
    """

    curve: Curve
    seen_before: float
    seen_after: float


MEASURES = {
    "before": "loss on the domain, before",
    "final": "loss on the domain, after",
    "steps": "steps to the baseline's half-way loss",
    "forgetting": "rise of the loss on the domains seen first",
}


def figures(later: Later, level: float) -> dict[str, float | None]:
    """Returns a fine-tuning's measures; ``level`` is the loss to which steps are counted."""
    return {
        "before": later.curve[0][1],
        "final": later.curve[-1][1],
        "steps": steps_to(level, later.curve),
        "forgetting": later.seen_after - later.seen_before,
    }


def compare_pairs(
    domain: str, pairs: Sequence[Pair], found: Mapping[tuple[str, Start], Later]
) -> list[dict[str, Any]]:
    """Returns a row a measure: both arms' values by seed and their paired difference.

    A seed in which an arm does not reach the level leaves ``steps`` without a difference.
    """
    sides: list[tuple[dict[str, float | None], dict[str, float | None]]] = []
    for pair in pairs:
        baseline, let = found[domain, pair.baseline], found[domain, pair.let]
        level = baseline.curve[len(baseline.curve) // 2][1]
        sides.append((figures(baseline, level), figures(let, level)))
    rows = []
    for measure in MEASURES:
        of_baseline = [side[0][measure] for side in sides]
        of_let = [side[1][measure] for side in sides]
        known = [x for x in of_baseline + of_let if x is not None]
        whole = len(known) == 2 * len(pairs)
        difference = paired_difference(known[len(pairs) :], known[: len(pairs)]) if whole else None
        rows.append(
            {
                "domain": domain,
                "equal": pairs[0].equal,
                "measure": measure,
                "baseline": of_baseline,
                "LET": of_let,
                "difference": None if difference is None else asdict(difference),
            }
        )
    return rows
