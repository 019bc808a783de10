"""Reading a run's folder, and the demo's report of two runs."""

import json
import math

import pytest

from let_titan import report
from let_titan.compare.markdown import command
from let_titan.runs import Run, by_step
from tests.handmade import BASELINE, BETTER, train_line, twins, write_run


def test_report_is_the_comparison_of_two_runs(tmp_path):
    twins(tmp_path, BASELINE, BETTER)
    out = tmp_path / "deep" / "out"
    arguments = [str(tmp_path / "baseline"), str(tmp_path / "let"), "--out", str(out), "--quick"]
    assert report.main(arguments) == 0
    lines = (out / "report.md").read_text().splitlines()
    assert lines[0] == f"**{report.QUICK}**"
    for expected in (
        "| 30 | 7.5000 | 7.2000 | -0.3000 |",
        "| optimiser steps | 40 | 35 | 1.143x |",
        "| FLOPs, the teacher's included | 4,000 | 4,000 | 1.000x |",
        "| LET, with the teacher | 450, 0.900x | 3, 1.500x |",
        "| parameters in the blocks | 4,800,000 |",
        "Arms and baseline differ in let and teacher alone.",
        "![Validation loss by step](validation_loss.png)",
        "torchrun --nproc_per_node=2 -m let_titan.train --job.config_file configs/let.toml",
    ):
        assert expected in lines
    for plot in ("validation_loss.png", "speedup.png", "alignment.png", "costs.png"):
        assert (out / plot).read_bytes().startswith(b"\x89PNG")
    found = json.loads((out / "report.json").read_text())["arms"][0]
    assert found["target"]["costs"]["steps"]["speed_up"]["value"] == pytest.approx(40 / 35)


@pytest.mark.parametrize(
    ("per_node", "expected"),
    [
        (8, "--nproc_per_node=8 --rdzv_backend=c10d --rdzv_endpoint=HEAD:29500 -m let_titan.train"),
        (32, "torchrun --nproc_per_node=32 -m let_titan.train"),
        (None, "torchrun --nproc_per_node=32 -m let_titan.train"),
    ],
)
def test_the_command_starts_as_many_nodes_as_there_were(per_node, expected, tmp_path):
    run = Run.load(write_run(tmp_path / "run", False, BASELINE))
    run.summary["hardware"] |= {"world_size": 32, "local_world_size": per_node}
    assert expected in command(run)
    assert ("torchrun --nnodes=4 " in command(run)) == (per_node == 8)
    del run.summary["hardware"]["local_world_size"]
    assert command(run).startswith("torchrun --nproc_per_node=32 ")


def test_exchanged_folders_are_refused_with_a_sentence(tmp_path, capsys):
    twins(tmp_path, BASELINE, BETTER)
    arguments = [str(tmp_path / "let"), str(tmp_path / "baseline"), "--out", str(tmp_path / "out")]
    assert report.main(arguments) == 2
    assert "give the baseline's folder first" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_torn_last_line_is_left_out(tmp_path):
    folder = write_run(tmp_path / "run", False, BASELINE)
    whole = Run.load(folder)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 50, "lo')
    assert Run.load(folder) == whole


def test_lines_of_other_kinds_are_passed_over_and_null_is_no_number(tmp_path):
    folder = write_run(tmp_path / "run", False, BASELINE)
    whole = Run.load(folder)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 41, "nonfinite": {"loss": null}}\n')
    assert Run.load(folder) == whole
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 50, "loss": null}\n{"step": 50, "val_loss": null}\n')
    run = Run.load(folder)
    assert run.train[-1] == {"step": 50, "loss": None}
    assert run.curve[-1][0] == 50 and math.isnan(run.curve[-1][1])


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
