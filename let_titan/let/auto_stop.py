"""Auto stop: the step at which the alignment has done its work, found in the run itself."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

SMOOTHING = 0.9
"""Weight of the earlier looks in a smoothed value; the current look has the rest."""

PATIENCE = 10
"""Looks before anything is decided, and looks without a gain after which none is expected."""


@dataclass
class Seen:
    """What the looks so far say; part of the train state."""

    looks: int = 0
    gradients: float = 0.0  # smoothed cosine between the two gradients, mean over pairs
    states: float = 0.0  # smoothed cosine of the aligned blocks to the teacher, mean over pairs
    best: float = -math.inf
    since: int = 0  # looks since ``best``
    s_stop: int = 0  # 0: not found yet


class AutoStop:
    """Decides once, from ``alignment.Diagnostics``, that a step was the last with a teacher.

    All ranks see the same figures, so all decide alike. Two things end the alignment: its gradient
    has turned against the NLL's (their smoothed cosine at the aligned blocks lies below
    ``threshold``), or nothing is gained any more (in PATIENCE looks the smoothed cosine of these
    blocks to the teacher has not risen by ``gain`` above its best).

    Args:
        blocks: the aligned block of each pair, from 1.
        threshold: of the gradients' cosine.
        gain: of the states' cosine.
    """

    def __init__(self, blocks: tuple[int, ...], threshold: float, gain: float) -> None:
        self.blocks, self.threshold, self.gain = blocks, threshold, gain
        self.seen = Seen()

    def look(self, step: int, found: Mapping[str, Any]) -> str | None:
        """Takes a step's diagnostics; returns why ``step`` becomes s_stop, or None.

        A step in which a gradient is zero has no angle and does not count.
        """
        of_pairs = zip(self.blocks, found["block_cosine"], strict=True)
        states = mean([cosines[block - 1] for block, cosines in of_pairs])
        gradients = mean(found["grad_cosine"])
        if not (math.isfinite(states) and math.isfinite(gradients)):
            return None
        seen = self.seen
        seen.gradients = smoothed(seen.gradients, gradients, seen.looks)
        seen.states = smoothed(seen.states, states, seen.looks)
        seen.looks, seen.since = seen.looks + 1, seen.since + 1
        if seen.states > seen.best + self.gain:
            seen.best, seen.since = seen.states, 0
        reason = self._reason()
        seen.s_stop = step if reason else 0
        return reason

    def _reason(self) -> str | None:
        seen = self.seen
        if seen.looks < PATIENCE:
            return None
        if seen.gradients < self.threshold:
            return (
                f"the gradients' cosine is {seen.gradients:.4f}, below let.auto_stop_cosine = "
                f"{self.threshold}"
            )
        if seen.since >= PATIENCE:
            return (
                f"the cosine to the teacher, {seen.states:.4f}, has not risen by "
                f"let.auto_stop_gain = {self.gain} in {PATIENCE} looks"
            )
        return None

    def state_dict(self) -> dict[str, str]:
        """Returns a part of the train state: JSON, which holds floats exactly."""
        return {"auto_stop": json.dumps(asdict(self.seen))}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes it back; a checkpoint without it begins with no looks."""
        self.seen = Seen(**json.loads(state.get("auto_stop", "{}")))


def smoothed(before: float, now: float, looks: int) -> float:
    return SMOOTHING * before + (1 - SMOOTHING) * now if looks else now


def mean(values: list[float]) -> float:
    return sum(values) / len(values)
