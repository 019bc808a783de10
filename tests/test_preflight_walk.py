"""Preflight: the most that is live in a pipeline's step, walked through by hand."""

import itertools

from let_titan.preflight.pipeline import most_live
from let_titan.preflight.stage import Phase, StageMemory
from let_titan.upstream import PipelineAction

FIRST = {"F": Phase(18, 15), "B": Phase(21, 15)}
LATER = {"F": Phase(8, 5), "B": Phase(3, -5), "REDUCE_GRAD": Phase(4, -30)}


def walked(steps, stages):
    """The most live after each step: "F0" of the only stage, "F0 1" of stage 1, "R" to reduce."""
    kinds = {"R": ("REDUCE_GRAD", None)}
    actions = []
    for step in steps.split(", "):
        step, _, stage = step.partition(" ")
        kind, microbatch = kinds.get(step) or (step[0], int(step[1]))
        actions.append(PipelineAction(int(stage or 0), kind, microbatch))
    return [most_live(actions[: n + 1], stages) for n in range(len(actions))]


def maxima(*levels):
    return list(itertools.accumulate(levels, max))


def test_a_walk_through_a_pipelines_step():
    """Two in flight; the first microbatch gathers weights (10) and makes gradients (20)."""
    stage = StageMemory({}, 100, 0, "BW", FIRST, LATER)
    levels = [100 + 18, 115 + 8, 120 + 21, 135 + 8, 140 + 3, 135 + 3, 130 + 4]
    assert walked("F0, F1, B0, F2, B1, B2, R", {0: stage}) == maxima(*levels)
    assert walked("F0, F0 1", {0: stage, 1: stage})[-1] == 200 + 15 + 18


def test_the_newest_output_outlives_its_backward_until_the_next_forward_returns():
    stage = StageMemory({}, 0, 2, "BW", FIRST, LATER)
    assert walked("F0, B0, F1, B1", {0: stage}) == maxima(18, 15 + 21, 30 + 2 + 8, 35 + 3)
    # Another microbatch's is held by the stage itself, as what is left of its forward.
    assert walked("F0, F1, B0, F2", {0: stage}) == maxima(18, 15 + 8, 20 + 21, 35 + 8)


def test_halves_of_a_backward_are_walked_apart():
    """Gradients are made by whichever is first to reach the weights."""
    halves = {"I": Phase(7, 1), "W": Phase(26, 14)}
    later = {**LATER, "I": Phase(6, 1), "W": Phase(9, -6)}
    stage = StageMemory({}, 0, 0, "BW", FIRST | halves, later)
    levels = [18, 15 + 8, 20 + 7, 21 + 6, 22 + 26, 36 + 9]
    assert walked("F0, F1, I0, I1, W0, W1", {0: stage}) == maxima(*levels)
    assert walked("F0, I0, W0, F1, B1", {0: stage})[-1] == 16 + 26
    last = StageMemory({}, 0, 2, "BI", FIRST | halves, later)
    assert walked("F0, I0, F1", {0: last}) == maxima(18, 15 + 7, 16 + 2 + 8)
