"""What a reader must know before believing a verdict: runs cut short, lengths that differ, scores
of other items."""

import textwrap
from collections.abc import Sequence

from let_titan.compare.measures import measure_at
from let_titan.compare.scores import left_out
from let_titan.runs import COMPLETED, Run

WIDTH = 120  # characters of an exit state: a failure may bring a long message of several lines
DIGITS = 12  # of a task's hash
NAMES = 3  # of scores that are left out: a corpus may have dozens of domains


def caveats(ours: Sequence[Run], theirs: Sequence[Run]) -> list[str]:
    """Returns sentences that belong to the verdict of two sides; none for sound ones."""
    return [
        *cut_short([*ours, *theirs]),
        *known_in_part([*ours, *theirs]),
        *unequal_lengths(ours, theirs),
        *unlike_scores([*theirs, *ours]),
    ]


def cut_short(runs: Sequence[Run]) -> list[str]:
    """Names runs that did not come to their end; of old summaries that say nothing, none."""
    found = [
        f"{run.name} did not come to its end (exit state: {state}; last step: "
        f"{run.train[-1]['step']:,})"
        for run in runs
        if (state := exit_state(run)) not in (None, COMPLETED)
    ]
    return [f"But {'; '.join(found)}."] if found else []


def known_in_part(runs: Sequence[Run]) -> list[str]:
    """Names runs whose summary.json was lost and written anew on the way."""
    found = [
        f"{run.name} (before step {step:,})" for run in runs if (step := run.fact("lost_before"))
    ]
    if not found:
        return []
    return [
        "But on what devices a run began is not known, since its summary.json was lost: "
        f"{', '.join(found)}."
    ]


def exit_state(run: Run) -> str | None:
    """Returns a run's exit state in one short line; None where an old summary says nothing."""
    state = run.fact("exit_state")
    return None if state is None else textwrap.shorten(str(state), WIDTH, placeholder=" ...")


def unequal_lengths(ours: Sequence[Run], theirs: Sequence[Run]) -> list[str]:
    """Says whether the sides' learning rates were set to decay over different lengths.

    At a common step one has then decayed, which lowers the loss by itself, and the other has not.
    """
    run, baseline = (
        sorted({steps for each in side if (steps := length(each))}) for side in (ours, theirs)
    )
    if run == baseline:
        return []
    ends = (" and ".join(f"{steps:,}" for steps in side) or "unknown" for side in (run, baseline))
    return [
        "But the learning rates were set for other lengths ({} steps, the baseline's for {}): at "
        "one step they have not decayed alike, which can be all of the difference.".format(*ends)
    ]


def length(run: Run) -> int | None:
    """Returns the step at which the learning rate's schedule ends."""
    paths = ("config.lr_scheduler.total_steps", "config.training.steps")
    found: list[int | None] = [run.fact(path) for path in paths]
    return found[0] or found[1]


def unlike_scores(runs: Sequence[Run]) -> list[str]:
    """Names the tasks and domains that were measured on other items or another text."""
    found = left_out(runs)
    if not found:
        return []
    names = [name for name, _ in found]
    if len(names) > NAMES:
        names[NAMES:] = [f"{len(names) - NAMES} more"]
    key, (step, term) = next(iter(found.items()))
    values: dict[str, str] = {}
    for run in runs:
        if (value := measure_at(run, key, step).get(term)) is not None:
            values.setdefault(str(value)[:DIGITS], run.name)
    said = ", ".join(f"{value} in {name}" for value, name in values.items())
    return [
        f"But scores are left out that were not measured alike: {', '.join(names)} ({key[0]}'s "
        f"{term} at step {step:,}: {said}). Evaluate all runs with the same options."
    ]
