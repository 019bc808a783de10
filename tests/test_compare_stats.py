"""The comparison's statistics: where a curve reaches a level, and scipy's intervals."""

import math

import pytest
from scipy import stats

from let_titan.compare.speedup import Cost, at_goal, at_level
from let_titan.compare.stats import mean, paired_difference, ratio, welch_difference
from let_titan.compare.trace import COSTS, Trace, crossing_step

A, B = [1.0, 2.5, 2.0, 4.0], [0.5, 2.75, 1.0, 2.0]


@pytest.mark.parametrize(
    ("losses", "level", "expected"),
    [
        ([11, 9, 8], 10.0, 5.0),  # between two evaluations
        ([11, 9, 8], 9.0, 10.0),  # at one
        ([11, 9, 8], 8.0, 20.0),  # at the last one
        ([11, 9, 8], 7.9, None),
        ([11, 9, 8], 12.0, 0.0),  # before any training
        ([11, 8, 10, 7], 7.5, 25.0),  # the best so far goes from 8 to 7, not from 10
        ([11, 8, 10, 7], 9.0, 20 / 3),  # the first crossing counts, not the one from 10 to 7
        ([11, math.nan, 9], 10.0, 10.0),
        ([math.inf, 9], 10.0, 10.0),
        ([11, 9], math.nan, None),
        ([], 9.0, None),
    ],
)
def test_crossing_is_where_the_best_loss_so_far_reaches_the_level(losses, level, expected):
    points = [(10 * i, float(loss)) for i, loss in enumerate(losses)]
    found = crossing_step(points, level)
    assert found == (expected if expected is None else pytest.approx(expected))


def trace(*losses):
    """Of a run evaluated at steps 0, 10, ..., each of which costs one of everything."""
    curve = [(10.0 * i, float(loss)) for i, loss in enumerate(losses)]
    return Trace(curve, {name: [(0.0, 0.0), (curve[-1][0], curve[-1][0])] for name in COSTS})


def test_no_speed_up_is_given_over_a_seed_that_was_there_before_any_training():
    pairs = [(trace(11, 9), trace(11, 9)), (trace(8, 8), trace(10, 8))]
    cost = at_level(pairs, [9.0, 9.0]).costs["steps"]
    assert cost == Cost(baseline=7.5, run=5.0, speed_up=None)


def test_a_goal_met_at_a_first_evaluation_costs_that_side_nothing_known():
    early, late = trace(9, 9), trace(11, 9)
    assert at_goal([(late, early)], [9.0]).costs["flops"] == Cost(None, 10.0, None)
    assert at_goal([(early, late)], [9.0]).costs["flops"] == Cost(10.0, None, None)


def test_intervals_are_scipys():
    found = mean(A)
    wanted = stats.ttest_1samp(A, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx(tuple(wanted))
    found = paired_difference(A, B)
    wanted = stats.ttest_rel(A, B).confidence_interval(0.95)
    assert (found.low, found.high, found.n) == pytest.approx((*wanted, 4))
    found = welch_difference(A, B[:3])
    wanted = stats.ttest_ind(A, B[:3], equal_var=False).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx(tuple(wanted))
    found = ratio(A)
    assert found.value == pytest.approx(stats.gmean(A))
    logs = stats.ttest_1samp([math.log(a) for a in A], 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx(tuple(math.exp(end) for end in logs))


def test_a_paired_interval_is_narrower_than_an_unpaired_one_where_seeds_move_alike():
    moved = [a + 0.1 + 0.001 * i for i, a in enumerate(A)]
    paired, unpaired = paired_difference(moved, A), welch_difference(moved, A)
    assert paired.value == pytest.approx(unpaired.value)
    assert paired.excludes(0) and not unpaired.excludes(0)


@pytest.mark.filterwarnings("error")
def test_equal_runs_and_single_runs_have_no_freedom():
    assert mean([2.0]).low is None and mean([2.0]).test == ""
    for found in (mean([2.0] * 3), paired_difference([3.0] * 3, [1.0] * 3)):
        assert found.low == found.high == found.value == 2.0
    assert welch_difference([3.0] * 2, [1.0] * 2).low == 2.0
    assert welch_difference([3.0], [1.0, 2.0]).low is None


@pytest.mark.parametrize("lost", [math.nan, math.inf])
def test_what_diverged_has_no_mean_and_no_interval(lost):
    gone, other = [1.0, lost, 2.0], [1.0, 2.0, lost]
    for found in (mean(gone), paired_difference(gone, other), welch_difference([1.0, 2.0], gone)):
        assert math.isnan(found.value) and found.low is found.high is None and found.test == ""
