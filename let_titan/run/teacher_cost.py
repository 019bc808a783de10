"""What the teacher of a run has computed so far, over all of the run's starts."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from let_titan.runs import Line, starts_of


@dataclass(frozen=True)
class TeacherCost:
    """Counts the teacher's FLOPs from a start of the run on.

    Attributes:
        tokens: read by the teacher before this start.
        flops: computed by it before this start.
        flops_per_token: from then on; 0 where its states come from a cache.
    """

    tokens: int = 0
    flops: int = 0
    flops_per_token: int = 0

    def at(self, tokens: int) -> int:
        """Returns the FLOPs up to where the teacher has read ``tokens``."""
        return self.flops + self.flops_per_token * (tokens - self.tokens)


def cost_at_start(
    step: int,
    tokens: int,
    teacher: dict[str, Any] | None,
    earlier: dict[str, Any],
    lines: Iterable[Line],
) -> TeacherCost:
    """Returns what a start counts from.

    Args:
        step: the steps that are done.
        tokens: that a teacher has read in them.
        teacher: its facts, while there is one.
        earlier: the summary that the run left before this start, {} without one.
        lines: of metrics.jsonl, those after ``step`` among them.
    """
    starts = starts_of(earlier) if earlier else []
    before = [start for start in starts if start["step"] < step]
    flops = cost_since(before[-1], earlier).at(tokens) if before else 0
    # Steps that are repeated are counted once, for the teacher as for the student: lines after
    # ``step`` do not count. But cached states are not computed again, so those lines do.
    reading = teacher is not None and teacher.get("placement") == "cache"
    counted = [line.get("teacher_flops") or 0 for line in lines if reading or line["step"] <= step]
    if reading:
        counted += [cost_since(start, earlier).flops for start in starts]
    rate = teacher["flops_per_token"] if teacher else 0
    return TeacherCost(tokens, max([flops, *counted]), rate)


def cost_since(start: dict[str, Any], summary: dict[str, Any]) -> TeacherCost:
    """Returns what was counted from ``start`` on; of old summaries: at one rate from step 0 on."""
    if "teacher_cost" in start:
        return TeacherCost(**start["teacher_cost"])
    return TeacherCost(flops_per_token=(summary.get("teacher") or {}).get("flops_per_token", 0))
