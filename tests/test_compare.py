"""The comparison of hand-made runs, whose figures are known."""

import json

import pytest
from scipy import stats

from let_titan.compare.result import compare
from let_titan.compare.text import headline, speed_sentence, verdict
from let_titan.compare.trace import Trace, crossing_step
from tests.handmade import (
    BASELINE,
    BETTER,
    DEVICES,
    SECONDS,
    STUDENT,
    TEACHER,
    TOKENS,
    WORSE,
    seeds,
    shifted,
    twins,
)


def test_costs_at_equal_loss_include_the_teacher(tmp_path):
    baseline, let = map(Trace.of, twins(tmp_path, BASELINE, BETTER))
    # From 7.2 at step 30 to 6.8 at step 40, 7.0 lies in the middle; the teacher left at step 20.
    assert let.reached(7.0) == pytest.approx(35)
    assert let.cost("flops", 35) == pytest.approx(35 * STUDENT + 20 * TEACHER)
    assert let.cost("tokens", 35) == pytest.approx(35 * TOKENS)
    assert let.cost("seconds", 35) == pytest.approx(35 * SECONDS)
    assert let.cost("device_hours", 35) == pytest.approx(35 * SECONDS * DEVICES / 3600)
    assert baseline.cost("flops", 40) == pytest.approx(40 * STUDENT)
    assert let.cost("flops", 5) == pytest.approx(5 * (STUDENT + TEACHER))
    assert let.cost("flops", 41) is None and let.cost("steps", 41) is None  # never extrapolated


def test_one_seed_that_wins(tmp_path):
    baseline, let = twins(tmp_path, BASELINE, BETTER)
    (result,) = compare([let], [baseline]).results
    assert result.target.loss == 7.0 and (result.target.reached, result.target.n) == (1, 1)
    speed = {name: cost.speed_up.value for name, cost in result.target.costs.items()}
    assert speed == pytest.approx(
        {
            "steps": 40 / 35,
            "tokens": 40 / 35,
            "flops": 1.0,  # 4000 against 3500 + 500
            "seconds": 40 / 35,
            "device_hours": 40 / 35,
        }
    )
    assert headline(result) == (
        "LET is 0.200 nats per token lower than its baseline at step 40. With one seed on a side "
        "there is no interval: it may be chance."
    )
    assert speed_sentence(result) == (
        "Its speed-up to the baseline's 7.000: 1.143x in steps, 1.000x in FLOPs (teacher "
        "included), 1.143x in time."
    )


def test_one_seed_that_loses_reaches_nothing(tmp_path):
    baseline, let = twins(tmp_path, BASELINE, WORSE)
    (result,) = compare([let], [baseline]).results
    assert "0.050 nats per token higher" in verdict(result)
    assert "It did not reach the baseline's 7.000." in verdict(result)
    for cost in result.target.costs.values():
        assert cost.run is cost.speed_up is None and cost.baseline > 0


def test_a_tie_is_a_tie(tmp_path):
    baseline, let = twins(tmp_path, BASELINE, BASELINE)
    (result,) = compare([let], [baseline]).results
    assert "LET is level with its baseline" in headline(result)
    assert result.target.costs["steps"].speed_up.value == 1.0
    assert result.target.costs["flops"].speed_up.value == pytest.approx(4000 / 4500)
    assert {level.costs["steps"].speed_up.value for level in result.curve} == {1.0}


def test_paired_seeds_have_an_interval_of_their_differences(tmp_path):
    shifts = [0.0, 0.3, -0.2]
    baseline = seeds(tmp_path, False, *(shifted(BASELINE, s) for s in shifts))
    gains = [-0.20, -0.21, -0.19]
    let = seeds(
        tmp_path, True, *(shifted(BASELINE, s + g) for s, g in zip(shifts, gains, strict=True))
    )
    (result,) = compare(let[::-1], baseline).results  # the order of the runs does not matter
    assert result.paired
    difference = result.rows[-1].difference
    wanted = stats.ttest_1samp(gains, 0).confidence_interval(0.95)
    assert (difference.value, difference.low, difference.high) == pytest.approx((-0.2, *wanted))
    assert "0.200 nats per token lower than its baseline at step 40 (95 %" in headline(result)
    assert "paired t, 3 seeds" in headline(result)
    # A shift by g: the baseline's last 0.5 in 10 steps are reached 20 g steps sooner.
    speeds = [40 / (40 + 20 * g) for g in gains]
    speed = result.target.costs["steps"].speed_up
    assert speed.value == pytest.approx(stats.gmean(speeds))
    assert speed.low < speed.value < speed.high and speed.excludes(1)


def test_seeds_that_do_not_pair_are_compared_by_welch(tmp_path):
    baseline = seeds(tmp_path, False, BASELINE, shifted(BASELINE, 0.1))
    let = seeds(tmp_path, True, BETTER, shifted(BETTER, 0.1), shifted(BETTER, 0.2), first=5)
    (result,) = compare(let, baseline).results
    assert not result.paired
    difference = result.rows[-1].difference
    wanted = stats.ttest_ind([6.8, 6.9, 7.0], [7.0, 7.1], equal_var=False)
    assert (difference.low, difference.high) == pytest.approx(wanted.confidence_interval(0.95))
    assert "Welch's t, 3 runs against 2)" in headline(result)
    assert "cannot be told" in headline(result)
    # The mean curves: 7.3 at step 30 and 6.9 at step 40 against a final 7.05
    assert result.target.loss == pytest.approx(7.05)
    assert result.target.costs["steps"].run == pytest.approx(36.25)
    assert result.target.costs["steps"].speed_up.low is None


def test_no_speed_up_is_given_where_a_seed_did_not_get_there(tmp_path):
    baseline = seeds(tmp_path, False, BASELINE, BASELINE)
    let = seeds(tmp_path, True, BETTER, WORSE)
    (result,) = compare(let, baseline).results
    assert (result.target.reached, result.target.n) == (1, 2)
    assert result.target.costs["steps"].run is result.target.costs["steps"].speed_up is None
    assert "Only 1 of its 2 runs reached the baseline's 7.000" in verdict(result)


def test_the_curve_of_speed_ups_ends_where_the_run_does(tmp_path):
    baseline, let = twins(tmp_path, BASELINE, WORSE)
    (result,) = compare([let], [baseline]).results
    losses = [level.loss for level in result.curve]
    assert losses[0] == 9.0 and losses[-1] == 7.0  # from where both had been evaluated once
    assert losses == sorted(losses, reverse=True)
    for level in result.curve:
        speed = level.costs["steps"].speed_up
        assert (speed is None) == (level.loss < 7.05)
        if speed is not None:
            ours, theirs = (crossing_step(list(c.items()), level.loss) for c in (WORSE, BASELINE))
            assert speed.value == pytest.approx(theirs / ours)


def test_a_lucky_crossing_does_not_stand_for_the_whole(tmp_path):
    noisy = {0: 11.0, 10: 6.9, 20: 9.0, 30: 8.5, 40: 8.0}
    (result,) = compare([(runs := twins(tmp_path, BASELINE, noisy))[1]], [runs[0]]).results
    assert result.target.costs["steps"].speed_up.value > 4  # it touched 7.0 once
    assert "1.000 nats per token higher" in verdict(result)  # and the verdict says how it ended


def test_a_diverged_run_is_not_compared_and_breaks_nothing(tmp_path):
    baseline, let = twins(tmp_path, BASELINE, {**BETTER, 40: None})
    comparison = compare([let], [baseline])
    assert "LET cannot be compared at step 40: runs diverged (1 of LET)" in verdict(
        comparison.results[0]
    )
    assert json.loads(comparison.to_json())["arms"][0]["rows"][-1]["run"]["value"] is None
    (result,) = compare([baseline], [let]).results
    assert result.target is None and "no loss to reach" in verdict(result)


def test_unequal_lengths_are_compared_where_both_were_evaluated(tmp_path):
    short = {step: BETTER[step] for step in (0, 10, 20, 30)}
    baseline, let = twins(tmp_path, BASELINE, short)
    (result,) = compare([let], [baseline]).results
    assert "0.300 nats per token lower than its baseline at step 30, the last in all" in verdict(
        result
    )
    assert result.target.loss == 7.5


def test_phases_and_the_first_window_after_each_start(tmp_path):
    baseline, let = twins(tmp_path, BASELINE, BETTER)
    (result,) = compare([let], [baseline]).results
    on, off = (result.phases[name] for name in ("with the teacher", "after the teacher"))
    assert on["tokens_per_s"].mean.value == pytest.approx(450)
    assert on["tokens_per_s"].to_baseline.value == pytest.approx(0.9)
    assert on["peak_memory_gib"].to_baseline.value == pytest.approx(1.5)
    assert off["tokens_per_s"].to_baseline.value == pytest.approx(1.0)
    whole = result.phases["whole run"]
    assert whole["tokens_per_s"].mean.value == pytest.approx(3 / (1 / 450 + 2 / 500))
    assert whole["peak_memory_gib"].mean.value == 3.0
    let.train[2]["tokens_per_s"] = 1.0  # step 30, the first after a resume at 20
    let.summary["starts"] = [{"step": step, "world_size": DEVICES} for step in (0, 20)]
    (result,) = compare([let], [baseline]).results
    assert result.phases["after the teacher"]["tokens_per_s"].mean.value == pytest.approx(500)
