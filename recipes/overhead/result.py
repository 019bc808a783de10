"""From timed runs to ratios: each arm against the baseline of its own round, half by half."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from overhead.clock import PHASES

HALVES = ("with_teacher", "after")
"""The first half of a run, in which LET and SALT have their teacher, and the second."""

Run = Mapping[str, Any]
"""What timed_train.py wrote."""

Half = dict[str, Any]


def halves(run: Run, warmup: int) -> dict[str, Half]:
    """Returns medians over either half's steps, without the first ``warmup`` and its last one.

    The last step of the first half lets the teacher go; to be fair the second half's is left out,
    too.

    Returns:
        For each half step_s, phases (seconds), tokens_per_s, peak_bytes, student_mfu and
        teacher_mfu (None without a teacher), both of ``peak_flops``. The student's is over the
        step without the phase "teacher", the teacher's over that phase, which holds what is done
        to its states, too.
    """
    return {name: half(run, steps) for name, steps in counted_steps(run, warmup).items()}


def counted_steps(run: Run, warmup: int) -> dict[str, Sequence[Mapping[str, Any]]]:
    """Returns either half's steps, without the first ``warmup`` and its last one."""
    n = len(run["steps"]) // 2
    parts = run["steps"][warmup : n - 1], run["steps"][n + warmup : 2 * n - 1]
    return dict(zip(HALVES, parts, strict=True))


def half(run: Run, steps: Sequence[Mapping[str, Any]]) -> Half:
    phases = {p: statistics.median(step["phases"][p] for step in steps) for p in PHASES}
    step_s = statistics.median(sum(step["phases"].values()) for step in steps)
    tokens, peak = run["tokens_per_step"], run["peak_flops"]
    active = steps[0]["teacher_active"]
    student_s = statistics.median(
        sum(step["phases"].values()) - step["phases"]["teacher"] for step in steps
    )
    return {
        "step_s": step_s,
        "phases": phases,
        "tokens_per_s": tokens / step_s,
        "peak_bytes": max(step["peak_bytes"] for step in steps),
        "student_mfu": run["student_flops_per_token"] * tokens / student_s / peak,
        "teacher_mfu": run["teacher"]["flops_per_token"] * tokens / phases["teacher"] / peak
        if active
        else None,
    }


def flop_floor(run: Run) -> float:
    """Returns the tokens/s that a teacher's FLOPs leave, of the baseline's, at equal MFU.

    Both models are counted with attention's two products and without recomputation: torchtitan's
    6 FLOPs a parameter for the student, 2 for the teacher.
    """
    student = run["student_flops_per_token"]
    return student / (student + run["teacher"]["flops_per_token"])


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def summarise(rounds: Sequence[Mapping[str, Run]], warmup: int) -> dict[str, Any]:
    """Compares every arm with the baseline of the same round.

    Args:
        rounds: {arm: run}, "baseline" among them, in the order in which they were made.

    Returns:
        {arm: {half: {"tokens_per_s_ratio", "peak_ratio": spreads over rounds, medians over rounds
        of what ``halves`` gives, "quick_step_s": the time that a tenth of all rounds' steps stay
        below, which a machine with others on it disturbs least}, "floor": of the arms with a
        teacher, "within_run": of those that it leaves}}. The last is the spread of tokens/s with
        the teacher over those of the same process after it, over the same ratio of the baseline's
        halves: processes that do the same work differ in speed on a CPU, and that is left out of
        it.
    """
    reduced = [{arm: halves(run, warmup) for arm, run in turn.items()} for turn in rounds]
    arms: dict[str, Any] = {}
    for arm in sorted(rounds[0], key=lambda name: name != "baseline"):
        found: dict[str, Any] = {}
        for name in HALVES:
            ours = [turn[arm][name] for turn in reduced]
            theirs = [turn["baseline"][name] for turn in reduced]
            pairs = list(zip(ours, theirs, strict=True))
            found[name] = {
                "tokens_per_s_ratio": spread(
                    [a["tokens_per_s"] / b["tokens_per_s"] for a, b in pairs]
                ),
                "peak_ratio": spread([a["peak_bytes"] / b["peak_bytes"] for a, b in pairs]),
                **medians(ours),
                "quick_step_s": quick([counted_steps(turn[arm], warmup)[name] for turn in rounds]),
            }
        if rounds[0][arm]["teacher"]:
            found["floor"] = flop_floor(rounds[0][arm])
        if found["after"]["teacher_mfu"] is None and arm != "baseline":
            found["within_run"] = spread(
                [decline(turn[arm]) / decline(turn["baseline"]) for turn in reduced]
            )
        arms[arm] = found
    return arms


def decline(run: Mapping[str, Half]) -> float:
    """Returns a run's tokens/s in its first half over those in its second."""
    return run["with_teacher"]["tokens_per_s"] / run["after"]["tokens_per_s"]


def quick(halves_of_rounds: Sequence[Sequence[Mapping[str, Any]]]) -> float:
    """Returns the tenth percentile of step times in seconds."""
    times = [sum(step["phases"].values()) for steps in halves_of_rounds for step in steps]
    return float(np.quantile(times, 0.1))


def medians(found: Sequence[Half]) -> Half:
    """Returns the medians over rounds of one arm's half."""
    result: Half = {
        key: statistics.median(half[key] for half in found)
        for key in ("step_s", "tokens_per_s", "peak_bytes", "student_mfu")
    }
    mfus = [half["teacher_mfu"] for half in found if half["teacher_mfu"] is not None]
    result["teacher_mfu"] = statistics.median(mfus) if mfus else None
    result["phases"] = {p: statistics.median(half["phases"][p] for half in found) for p in PHASES}
    return result
