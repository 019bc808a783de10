"""Which runs may be compared, in what; what was set differently is named."""

import pytest

from let_titan.compare.result import compare
from let_titan.compare.trace import Trace
from let_titan.data.files import data_fingerprint
from tests.handmade import (
    BASELINE,
    BETTER,
    DEVICES,
    SECONDS,
    STUDENT,
    TEACHER,
    TOKENS,
    seeds,
    twins,
)


def test_runs_without_a_common_evaluation_cannot_be_compared(tmp_path):
    baseline, let = twins(tmp_path, BASELINE, {0: 11.0, 15: 9.0})
    with pytest.raises(ValueError, match=r"validation\.freq"):
        compare([let], [baseline])


def test_a_run_that_had_a_teacher_is_no_baseline(tmp_path):
    baseline, let = twins(tmp_path, BASELINE, BETTER)
    assert compare([baseline], [let])  # another setting of LET may be compared with
    let.summary["let_plan"] = None  # it branched off at s_stop, and its summary is of the rest
    with pytest.raises(
        ValueError, match="let ended as a baseline, but had a teacher until step 20"
    ):
        compare([baseline], [let])


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


@pytest.mark.parametrize(
    ("key", "area"), [("data", "data"), ("validation_data", "validation")], ids=["data", "val"]
)
def test_data_without_a_hash_are_known_by_their_name_and_path(tmp_path, key, area):
    baseline, let = twins(tmp_path, BASELINE, BETTER)
    for run in (baseline, let):
        run.summary[key] = data_fingerprint("c4", "/data/c4")
    assert compare([let], [baseline]).allowed == []
    for name, path, said in (
        ("c4", "/data/fineweb", rf"{key}\.path \(/data/c4 in baseline, /data/fineweb in let\)"),
        ("c4_test", "/data/c4", rf"{key}\.dataset \(c4 in baseline, c4_test in let\)"),
    ):
        let.summary[key] = data_fingerprint(name, path)
        with pytest.raises(ValueError, match=rf"differ in {area}: {said}.*--allow {area}"):
            compare([let], [baseline])
    for run in (baseline, let):  # files of one hash may lie anywhere
        hashed = {"path": f"/scratch/{run.name}", "sha256_of_names_and_sizes": "d"}
        run.summary[key] = {"dataset": "pile", **hashed}
    assert compare([let], [baseline]).allowed == []


def test_other_hardware_withholds_times_alone_unless_allowed(tmp_path):
    baseline, let = twins(tmp_path, BASELINE, BETTER)
    let.summary["hardware"]["cpu_threads"] = 8
    (result,) = compare([let], [baseline]).results
    assert "hardware.cpu_threads (1 in baseline, 8 in let)" in result.untimed
    assert result.target.costs["seconds"].speed_up is None and result.phases == {}
    assert result.target.costs["flops"].speed_up.value == pytest.approx(1.0)
    (result,) = compare([let], [baseline], ["hardware"]).results
    assert result.untimed is None and result.target.costs["seconds"].speed_up is not None


def test_hardware_that_a_resume_changed_withholds_times_too(tmp_path):
    """The last start's alone would pass: both ended on one thread."""
    baseline, let = twins(tmp_path, BASELINE, BETTER)
    threads = {"device": "cpu", "cpu_threads": 8}
    first, second = ({"step": s, "world_size": DEVICES} for s in (0, 20))
    let.summary["starts"] = [first, second]
    assert compare([let], [baseline]).results[0].untimed is None  # as earlier versions left it
    let.summary["starts"] = [{**first, "hardware": threads}, second]
    (result,) = compare([let], [baseline]).results
    assert "hardware.cpu_threads (1 in baseline, [8, 1] in let)" in result.untimed
    assert result.target.costs["seconds"].speed_up is None
    later = {**second, "step": 30}
    baseline.summary["starts"] = [{**first, "hardware": threads}, later]
    (result,) = compare([let], [baseline]).results
    assert (
        "steps after which the hardware changed ([30] in baseline, [20] in let)" in result.untimed
    )
    let.summary["starts"][1] = later
    assert compare([let], [baseline]).results[0].untimed is None


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
