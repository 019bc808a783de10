"""The report of two hand-made runs, whose figures are known."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from let_titan import report
from let_titan.runs import Run, by_step, crossing_step

TOKENS, STUDENT, TEACHER = 1000, 100.0, 25.0  # tokens and FLOPs a step
S_STOP = 20


def train_line(step: int, let: bool) -> dict[str, Any]:
    on = let and step <= S_STOP
    return {
        "step": step,
        "loss": 7.0,
        "align_loss": -0.5 if on else None,
        "align_cosine": 0.5 if on else None,
        "lambda": 0.1 if on else 0.0,
        "tokens": step * TOKENS,
        "elapsed_s": step * 2.0,
        "teacher_active": on,
        "student_flops": step * STUDENT,
        "teacher_flops": min(step, S_STOP) * TEACHER if let else 0,
    }


def summary(let: bool) -> dict[str, Any]:
    plan = {"pairs": [{"layer": "last", "block": 2, "weight": 1.0}], "lambda_0": 0.1}
    cost = {"tokens_per_s": 500.0, "peak_memory_gib": 2.0}
    return {
        "config": {
            "job": {"config_file": f"configs/{'let' if let else 'baseline'}.toml"},
            "model": {"flavor": "demo", "init_scheme": "llama"},
            "teacher": {"checkpoint": "a/teacher" if let else ""},
            "optimizer": {"lr": 1e-3},
            "training": {"steps": 40},
            "debug": {"seed": 7},
        },
        "hardware": {"device": "cpu", "world_size": 2},
        "versions": {"torchtitan": "0.2.2"},
        "git_commit": None,
        "parameters": {"total": 30_000_000, "blocks": 4_800_000},
        "let_plan": {**plan, "s_stop": S_STOP, "schedule": "linear"} if let else None,
        "throughput": {
            "let_phase": {"tokens_per_s": 450.0, "peak_memory_gib": 3.0} if let else None,
            "after": cost,
        },
        "wall_time_s": 80.0,
        "exit_state": "completed",
    }


def write_run(folder: Path, let: bool, losses: dict[int, float]) -> Path:
    """Writes a run whose train lines stand at every tenth step."""
    lines = [train_line(step, let) for step in range(10, max(losses) + 1, 10)]
    lines += [{"step": step, "val_loss": loss} for step, loss in losses.items()]
    folder.mkdir(parents=True)
    text = "".join(json.dumps(line) + "\n" for line in sorted(lines, key=lambda x: x["step"]))
    (folder / "metrics.jsonl").write_text(text)
    (folder / "summary.json").write_text(json.dumps(summary(let)))
    return folder


def twins(tmp_path: Path, baseline: dict[int, float], let: dict[int, float]) -> tuple[Run, Run]:
    return (
        Run.load(write_run(tmp_path / "baseline", False, baseline)),
        Run.load(write_run(tmp_path / "let", True, let)),
    )


BASELINE = {0: 11.0, 10: 9.0, 20: 8.0, 30: 7.5, 40: 7.0}
BETTER = {0: 11.0, 10: 9.5, 20: 8.0, 30: 7.2, 40: 6.8}
WORSE = {0: 11.0, 10: 9.5, 20: 8.2, 30: 7.7, 40: 7.05}


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
    ],
)
def test_crossing_is_where_the_best_loss_so_far_reaches_the_level(losses, level, expected):
    points = [(10 * i, float(loss)) for i, loss in enumerate(losses)]
    found = crossing_step(points, level)
    assert found == (expected if expected is None else pytest.approx(expected))


def test_costs_at_equal_loss_include_the_teacher(tmp_path):
    baseline, let = twins(tmp_path, BASELINE, BETTER)
    # From 7.2 at step 30 to 6.8 at step 40, 7.0 lies in the middle; the teacher left at step 20.
    assert report.costs_of(let, 7.0) == pytest.approx([35, 35 * STUDENT + 20 * TEACHER, 70])
    assert report.costs_of(baseline, 7.0) == pytest.approx([40, 40 * STUDENT, 80])
    assert report.costs_of(baseline, 6.9) == [None, None, None]


def test_counts_are_interpolated_from_zero_and_go_on_past_the_last_line(tmp_path):
    _, let = twins(tmp_path, BASELINE, BETTER)
    assert let.total(["teacher_flops"], 5) == pytest.approx(5 * TEACHER)
    assert let.total(["student_flops"], 43) == pytest.approx(43 * STUDENT)
    let.train[2]["elapsed_s"] = 1.0  # a clock that began anew measures nothing
    assert let.total(["elapsed_s"], 35) is None


def test_verdict_when_let_wins(tmp_path):
    text = report.verdict(*twins(tmp_path, BASELINE, BETTER))
    assert "LET ended at 6.800, the baseline at 7.000: LET is 0.200 better at equal steps." in text
    assert "reached the baseline's 7.000 at step 35, with 0.875x its steps" in text
    assert "1.000x its FLOPs (teacher included)" in text  # 3500 + 500 against 4000


def test_verdict_when_let_loses(tmp_path):
    text = report.verdict(*twins(tmp_path, BASELINE, WORSE))
    assert "LET is 0.050 worse at equal steps." in text
    assert "LET did not reach the baseline's 7.000 at any step." in text


def test_verdict_of_a_tie(tmp_path):
    text = report.verdict(*twins(tmp_path, BASELINE, {**BASELINE, 40: 7.0004}))
    assert "LET is no different at equal steps" in text


def test_verdict_figures_agree_with_each_other_after_rounding(tmp_path):
    text = report.verdict(*twins(tmp_path, {0: 11.0, 40: 6.9425}, {0: 11.0, 40: 7.0105}))
    let, baseline, by = [float(w.strip(":,")) for w in text.split() if w[1:2] == "."][:3]
    assert by == pytest.approx(let - baseline)


def test_verdict_of_a_diverged_run(tmp_path):
    baseline, let = twins(tmp_path, BASELINE, {**BASELINE, 40: math.nan})
    assert "LET ended at nan" in report.verdict(baseline, let)
    assert "diverged" in report.report(baseline, let)


def test_verdict_of_unequal_lengths_is_taken_where_both_were_evaluated(tmp_path):
    short = {step: BETTER[step] for step in (0, 10, 20, 30)}
    text = report.verdict(*twins(tmp_path, BASELINE, short))
    assert text.startswith("At step 30, the last in both, LET had 7.200, the baseline 7.500")
    assert "0.300 better" in text


def test_report_holds_the_figures(tmp_path):
    lines = report.report(*twins(tmp_path, BASELINE, BETTER)).splitlines()
    for expected in (
        "| 30 | 7.5000 | 7.2000 | -0.3000 |",
        "| optimiser steps | 40 | 35 | 0.875x |",
        "| FLOPs, the teacher's included | 4,000 | 4,000 | 1.000x |",
        "| LET, with the teacher | 450 | 0.900x | 3 | 1.500x |",
        "| LET, after it | 500 | 1.000x | 2 | 1.000x |",
        "| teacher FLOPs | 0 | 500 |",
        "| parameters in the blocks | 4,800,000 | 4,800,000 |",
        "| teacher | n/a | a/teacher |",
        "| k | n/a | 2 |",
        "| seed | 7 | 7 |",
        "They differ in the sections job, let and teacher alone.",
        "![Validation loss by step](validation_loss.png)",
        "torchrun --nproc_per_node=2 -m let_titan.train --job.config_file configs/let.toml",
    ):
        assert expected in lines
    assert "One seed, 40,000 tokens an arm" in "\n".join(lines)


def test_report_names_what_makes_the_runs_no_twins(tmp_path):
    baseline, let = twins(tmp_path, BASELINE, BETTER)
    let.summary["config"]["optimizer"]["lr"] = 3e-3
    let.summary["data"] = {"sha256": "other"}
    text = report.differences(baseline, let)
    assert "config.optimizer.lr (0.001 against 0.003)" in text
    assert "data (n/a against" in text


def test_report_of_a_killed_run_has_gaps_not_errors(tmp_path):
    baseline, let = twins(tmp_path, BASELINE, BETTER)
    let.summary["throughput"] = {"let_phase": None, "after": None}
    let.summary["wall_time_s"] = None
    text = report.report(baseline, let)
    assert "| LET, with the teacher | n/a | n/a | n/a | n/a |" in text
    assert "| wall time, s | 80 | n/a |" in text


def test_main_writes_report_and_plots(tmp_path):
    twins(tmp_path, BASELINE, BETTER)
    out = tmp_path / "deep" / "out"
    arguments = [str(tmp_path / "baseline"), str(tmp_path / "let"), "--out", str(out), "--quick"]
    assert report.main(arguments) == 0
    assert (out / "report.md").read_text().splitlines()[0] == report.QUICK
    for plot in ("validation_loss.png", "alignment.png"):
        assert (out / plot).read_bytes().startswith(b"\x89PNG")


def test_main_refuses_exchanged_folders_with_a_sentence(tmp_path, capsys):
    twins(tmp_path, BASELINE, BETTER)
    arguments = [str(tmp_path / "let"), str(tmp_path / "baseline"), "--out", str(tmp_path / "out")]
    assert report.main(arguments) == 2
    assert "give the baseline's folder first" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_runs_without_a_common_evaluation_cannot_be_compared(tmp_path):
    baseline, let = twins(tmp_path, BASELINE, {0: 11.0, 15: 9.0})
    with pytest.raises(ValueError, match=r"validation\.freq"):
        report.validation_table(baseline, let)


def test_torn_last_line_is_left_out(tmp_path):
    folder = write_run(tmp_path / "run", False, BASELINE)
    whole = Run.load(folder)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 50, "lo')
    assert Run.load(folder) == whole


def test_last_line_without_its_newline_counts(tmp_path):
    folder = write_run(tmp_path / "run", False, BASELINE)
    path = folder / "metrics.jsonl"
    path.write_text(path.read_text().rstrip("\n"))
    assert Run.load(folder).curve[-1] == (40, 7.0)


def test_resumed_run_counts_no_step_twice(tmp_path):
    folder = write_run(tmp_path / "run", False, BASELINE)
    with (folder / "metrics.jsonl").open("a") as file:  # resumed at step 20
        for step, loss in ((30, 7.4), (40, 6.9), (50, 6.7)):
            file.write(json.dumps(train_line(step, False)) + "\n")
            file.write(json.dumps({"step": step, "val_loss": loss}) + "\n")
    run = Run.load(folder)
    assert [line["step"] for line in run.train] == [10, 20, 30, 40, 50]
    assert run.curve[-4:] == [(20, 8.0), (30, 7.4), (40, 6.9), (50, 6.7)]


def test_by_step_drops_what_a_line_repeats():
    lines = [{"step": step} for step in (1, 2, 3, 2)]
    assert by_step(lines) == [{"step": 1}, {"step": 2}]


@pytest.mark.parametrize("name", ["metrics.jsonl", "summary.json"])
def test_missing_file_is_named(tmp_path, name):
    folder = write_run(tmp_path / "run", False, BASELINE)
    (folder / name).unlink()
    with pytest.raises(ValueError, match=f"{name} is missing: give"):
        Run.load(folder)


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere is not a folder: give"):
        Run.load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("metrics.jsonl", '{"step": 1}\n{"st\n{"step": 2}\n', "line 2, is not JSON"),
        ("metrics.jsonl", "[1]\n", "line 1, has no step"),
        ("metrics.jsonl", "", "has no train line"),
        ("metrics.jsonl", '{"step": 1, "loss": 7.0}\n', "has no validation line"),
        ("summary.json", "{", "is not JSON"),
        ("summary.json", "{}", "lacks config"),
    ],
)
def test_damaged_file_is_named(tmp_path, name, text, message):
    folder = write_run(tmp_path / "run", False, BASELINE)
    (folder / name).write_text(text)
    with pytest.raises(ValueError, match=f"{name}.*{message}"):
        Run.load(folder)
