"""How a run came out, from the lines of its metrics.jsonl. Standard library only."""

from collections.abc import Iterable, Sequence
from typing import Any

from let_titan.runs import Line, is_number


def outcome(lines: Sequence[Line], starts: Sequence[int] = (0,)) -> dict[str, Any]:
    """Draws from metrics.jsonl's lines how a run came out.

    Args:
        lines: all lines of the file.
        starts: the steps after which the run was started or resumed.

    Returns:
        final and best validation loss, the steps that were left out because something was not
        finite, wall time in seconds, and per phase the mean tokens/s and the highest memory in GiB.
    """
    losses = [line["val_loss"] for line in lines if is_number(line.get("val_loss"))]
    train = [line for line in lines if "loss" in line]
    counted = steady(train, starts)
    return {
        "final_val_loss": losses[-1] if losses else None,
        "best_val_loss": min(losses, default=None),
        "nonfinite_steps": [line["step"] for line in lines if "nonfinite" in line],
        "wall_time_s": train[-1]["elapsed_s"] if train else None,
        "throughput": {
            "let_phase": phase_cost(line for line in counted if line["teacher_active"]),
            "after": phase_cost(line for line in counted if not line["teacher_active"]),
        },
    }


def steady(train: Sequence[Line], starts: Sequence[int]) -> list[Line]:
    """Returns the train lines without the first after each start, which compiles and allocates."""
    firsts = {
        next((line["step"] for line in train if line["step"] > start), None) for start in starts
    }
    return [line for line in train if line["step"] not in firsts]


def phase_cost(lines: Iterable[Line]) -> dict[str, float] | None:
    """Returns {tokens_per_s, peak_memory_gib} over train lines, or None without any."""
    counted = list(lines)
    if not counted:
        return None
    # Each window counts alike: rates over (nearly) equal tokens have a harmonic mean.
    seconds_per_token = sum(1 / line["tokens_per_s"] for line in counted) / len(counted)
    return {
        "tokens_per_s": 1 / seconds_per_token,
        "peak_memory_gib": max(line["memory_gib"] for line in counted),
    }
