"""Which runs are seeds of one arm, and what an arm is called."""

import copy
import json
import shutil
from dataclasses import asdict

import pytest
from torchtitan.config.job_config import Checkpoint

from let_titan.compare.__main__ import main
from let_titan.compare.alternatives import validation
from let_titan.compare.arms import baseline_arm, group
from let_titan.compare.markdown import report
from let_titan.compare.result import compare
from let_titan.runs import Run
from tests.handmade import BASELINE, BETTER, seeds, twins, write_run


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


def test_a_number_at_the_end_of_a_name_is_no_seed_where_the_runs_have_one_name(tmp_path):
    first, other = (Run.load(write_run(tmp_path / f"let-{i}", True, BETTER)) for i in (1, 2))
    other.summary["config"]["let"]["k"] = 3
    assert [arm.name for arm in group([first, other])] == ["let-1", "let-2"]


def test_one_run_written_in_two_ways_is_one_run(tmp_path, capsys):
    baseline = write_run(tmp_path / "baseline", False, BASELINE)
    let = write_run(tmp_path / "let", True, BETTER)
    (tmp_path / "link").symlink_to(let)
    twice = [str(let), f"{let}/", str(tmp_path / "link"), "--baseline", str(baseline)]
    out = ["--out", str(tmp_path / "out"), "--untimed", f"{let}/"]
    assert main([*twice, f"{baseline}/", *out]) == 0
    assert "there is no interval: it may be chance." in capsys.readouterr().out
    assert "| LET | 7 |" in (tmp_path / "out" / "report.md").read_text()
    shutil.copytree(let, tmp_path / "copy")
    assert main([*twice, "--out", str(tmp_path / "new"), "--untimed", str(let)]) == 0
    assert main([str(let), str(tmp_path / "copy"), "--baseline", str(baseline), *out]) == 2
    assert "let and copy of LET have one setting and one debug.seed, 7" in capsys.readouterr().err


def test_runs_without_a_seed_are_no_doubles(tmp_path):
    let, baseline = (seeds(tmp_path, side, BETTER, BETTER) for side in (True, False))
    for run in let:
        run.summary["config"]["debug"]["seed"] = None
    assert compare(let, baseline).results[0].rows[-1].difference.low is not None


def test_no_arm_takes_the_baselines_name(tmp_path):
    baseline = twins(tmp_path / "a", BASELINE, BETTER)[0]
    other = twins(tmp_path / "b", BETTER, BETTER)[0]
    other.summary["config"]["optimizer"]["lr"] = 3e-3
    comparison = compare([other], [baseline])
    assert [arm.name for arm in comparison.arms] == ["baseline (run)"]
    settings = json.loads(comparison.to_json())["settings"]
    assert settings["optimizer.lr"] == {"baseline": 1e-3, "baseline (run)": 3e-3}
    assert "baseline 9.000 to 7.000; baseline (run) 9.500 to 6.800" in validation(comparison)


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("teacher", "cache", "/scratch/states"),
        ("teacher", "checkpoint", "/nfs/a/teacher"),
        ("export", "enable", True),
        ("let", "diagnostics_freq", 50),
    ],
)
def test_what_is_not_trained_splits_no_seeds(tmp_path, section, key, value):
    let = seeds(tmp_path, True, BETTER, BETTER, BETTER)
    let[0].summary["config"].setdefault(section, {})[key] = value
    comparison = compare(let, seeds(tmp_path, False, BASELINE, BASELINE, BASELINE))
    assert [result.seeds for result in comparison.results] == [[0, 1, 2]]
    assert comparison.results[0].paired
    said = "config.teacher.checkpoint (/nfs/a/teacher in let-seed0, a/teacher in let-seed1)"
    assert (said in comparison.unintended) == (key == "checkpoint")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("initial_load_path", "/models/llama"),
        ("initial_load_in_hf", True),
        ("initial_load_model_only", False),
        ("exclude_from_loading", ["dataloader"]),
    ],
)
def test_runs_that_begin_with_other_weights_are_no_twins(tmp_path, key, value):
    runs = seeds(tmp_path, True, BETTER, BETTER)
    (baseline,) = seeds(tmp_path, False, BASELINE)
    for run in (*runs, baseline):
        run.summary["config"]["checkpoint"] = asdict(Checkpoint(enable=True))
    runs[0].summary["config"]["checkpoint"] |= {"enable": False, "interval": 10}
    assert [arm.seeds for arm in group(runs)] == [[0, 1]]
    runs[1].summary["config"]["checkpoint"][key] = value
    assert [arm.seeds for arm in group(runs)] == [[0], [1]]
    assert compare(runs[1:], [baseline]).unintended == [f"checkpoint.{key}"]
    runs[1].summary["config"]["checkpoint"]["enable"] = False  # and nothing is loaded
    assert [arm.seeds for arm in group(runs)] == [[0, 1]]


def test_weights_beside_the_tokenizer_are_known_by_their_place(tmp_path):
    runs = seeds(tmp_path, True, BETTER, BETTER)
    for run, place in zip(runs, ("/models/a", "/models/b"), strict=True):
        run.summary["config"]["model"]["hf_assets_path"] = place
    assert len(group(runs)) == 1
    for run in runs:
        run.summary["config"]["checkpoint"] = {"initial_load_in_hf": True}
    assert len(group(runs)) == 2
    for run in runs:
        run.summary["config"]["checkpoint"]["initial_load_path"] = "/models/c"
    assert len(group(runs)) == 1


@pytest.mark.parametrize("method", ["rkd", "salt"])
def test_a_distilled_arm_alone_is_not_called_let(tmp_path, method):
    runs = [write_run(tmp_path / f"{method}-seed{seed}", True, BETTER, seed) for seed in (0, 1)]
    taught = [Run.load(run) for run in runs]
    baseline = seeds(tmp_path, False, BASELINE, BASELINE)
    for run in taught:
        run.summary["config"]["distill"] = {"method": "none"}
    assert [arm.name for arm in group(taught)] == ["LET"]
    assert report(compare(taught, baseline)).startswith("# Late-to-Early Training against its")
    for run in taught:
        run.summary["config"]["distill"] = {"method": method}
    comparison = compare(taught, baseline)
    assert [result.name for result in comparison.results] == [method]
    assert report(comparison).startswith(f"# {method} against the baseline")


def test_other_teachers_are_other_arms(tmp_path):
    let = seeds(tmp_path, True, BETTER, BETTER, BETTER)
    let[1].summary["config"]["teacher"]["checkpoint"] = "a/larger"
    let[2].summary["teacher"] = {"parameters": 1_000_000}  # of the first one's name
    assert [arm.seeds for arm in group(let)] == [[0], [1], [2]]
    assert len({arm.name for arm in group(let)}) == 3
    with pytest.raises(ValueError, match=r"The baseline's runs differ in teacher\.checkpoint"):
        baseline_arm([let[0], let[2]])
