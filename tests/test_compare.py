"""The comparison of hand-made runs, whose figures are known."""

import copy
import json
import math

import pytest
from scipy import stats

from let_titan.compare.arms import baseline_arm, group
from let_titan.compare.result import compare
from let_titan.compare.stats import mean, paired_difference, ratio, welch_difference
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


def test_runs_without_a_common_evaluation_cannot_be_compared(tmp_path):
    baseline, let = twins(tmp_path, BASELINE, {0: 11.0, 15: 9.0})
    with pytest.raises(ValueError, match=r"validation\.freq"):
        compare([let], [baseline])


def test_a_clock_that_began_anew_measures_nothing(tmp_path):
    baseline, let = twins(tmp_path, BASELINE, BETTER)
    let.train[2]["elapsed_s"] = 1.0
    costs = compare([let], [baseline]).results[0].target.costs
    assert costs["seconds"].speed_up is costs["device_hours"].speed_up is None
    assert costs["steps"].speed_up is not None


def test_a_run_resumed_on_fewer_devices_counts_each_stretch_on_its_own(tmp_path):
    baseline, let = twins(tmp_path, BASELINE, BETTER)
    let.summary["starts"] = [{"step": 0, "world_size": 8}, {"step": 20, "world_size": 2}]
    let.summary["hardware"]["world_size"] = 2
    hours = Trace.of(let).cost("device_hours", 35)
    assert hours == pytest.approx((20 * SECONDS * 8 + 15 * SECONDS * 2) / 3600)
    (result,) = compare([let], [baseline]).results
    assert "devices by start ([2] in baseline, [8, 2] in let)" in result.untimed


def test_missing_lines_and_keys_leave_gaps_not_errors(tmp_path):
    baseline, let = twins(tmp_path, BASELINE, BETTER)
    del let.train[1]  # step 20
    let.train[0]["tokens"] = None
    costs = compare([let], [baseline]).results[0].target.costs
    assert costs["tokens"].run == pytest.approx(35 * TOKENS)
    assert costs["flops"].run == pytest.approx(35 * STUDENT + 20 * TEACHER)


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


@pytest.mark.parametrize(
    ("area", "path", "value"),
    [
        ("student", ("parameters", "total"), 1),
        ("data", ("data", "sha256_of_names_and_sizes"), "other"),
        ("tokens-per-step", ("tokens_per_step",), 2000),
        ("validation", ("config", "validation", "steps"), 5),
    ],
)
def test_what_twins_must_share_is_refused_by_name_unless_allowed(tmp_path, area, path, value):
    baseline, let = twins(tmp_path, BASELINE, BETTER)
    part = let.summary
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    with pytest.raises(ValueError, match=rf"differ in {area.replace('-', ' ')}.*--allow {area}"):
        compare([let], [baseline])
    assert compare([let], [baseline], [area]).allowed


def test_other_hardware_withholds_times_alone_unless_allowed(tmp_path):
    baseline, let = twins(tmp_path, BASELINE, BETTER)
    let.summary["hardware"]["cpu_threads"] = 8
    (result,) = compare([let], [baseline]).results
    assert "hardware.cpu_threads (1 in baseline, 8 in let)" in result.untimed
    assert result.target.costs["seconds"].speed_up is None and result.phases == {}
    assert result.target.costs["flops"].speed_up.value == pytest.approx(1.0)
    (result,) = compare([let], [baseline], ["hardware"]).results
    assert result.untimed is None and result.target.costs["seconds"].speed_up is not None


def test_a_run_whose_clock_does_not_count_is_left_out_of_times_alone(tmp_path):
    baseline, let = (
        seeds(tmp_path, False, BASELINE, BASELINE),
        seeds(tmp_path, True, BETTER, BETTER),
    )
    let[1].train[3]["elapsed_s"] *= 100
    (result,) = compare(let, baseline, untimed={id(let[1])}).results
    assert result.target.costs["seconds"].speed_up.value == pytest.approx(40 / 35)
    assert result.target.costs["seconds"].speed_up.n == 1
    assert result.target.costs["steps"].speed_up.n == 2
    assert result.phases["whole run"]["tokens_per_s"].mean.n == 1


def test_arms_are_settings_and_their_runs_seeds(tmp_path):
    let = seeds(tmp_path, True, BETTER, BETTER)
    other = copy.deepcopy(let[0])
    other.summary["config"]["let"]["k"] = 3
    moved = copy.deepcopy(let[1])  # on another machine, from another place
    moved.summary["config"]["job"]["config_file"] = "/elsewhere.toml"
    arms = group([let[0], other, moved])
    assert [arm.name for arm in arms] == ["let.k=2", "let.k=3"]
    assert [arm.seeds for arm in arms] == [[0, 1], [0]]
    assert [arm.name for arm in group(let)] == ["LET"]
    with pytest.raises(ValueError, match=r"let\.k \(2 against 3\).*debug\.seed"):
        baseline_arm([let[0], other])


def test_what_was_set_differently_is_named(tmp_path):
    baseline, let = twins(tmp_path, BASELINE, BETTER)
    comparison = compare([let], [baseline])
    assert ("teacher.checkpoint", [None, "a/teacher"]) in comparison.settings
    assert comparison.unintended == []
    let.summary["config"]["optimizer"]["lr"] = 3e-3
    let.summary["versions"] = {"torchtitan": "0.2.3"}
    comparison = compare([let], [baseline])
    assert comparison.unintended[0] == "optimizer.lr"
    assert comparison.unintended[1].startswith("versions (")
    assert ("optimizer.lr", [1e-3, 3e-3]) in comparison.settings
