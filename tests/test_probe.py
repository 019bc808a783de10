"""The probe: a tiny one from end to end, its rules on looks made by hand, its refusals."""

import itertools
import json
import math
import sys
import tomllib

import pytest
import torch

from let_titan.config import LetConfigManager
from let_titan.errors import RunError
from let_titan.probe.__main__ import main
from let_titan.probe.proposal import evidence_of, propose
from let_titan.probe.table import cells, show
from let_titan.probe.trials import (
    BASELINE,
    Trial,
    begins_with_weights,
    candidates,
    in_processes,
)
from let_titan.train import LetTrainer
from tests.support import write_toml

GOES_ON = ["--checkpoint.enable", "--checkpoint.initial_load_path", "some"]
GOES_ON += ["--checkpoint.no-initial_load_model_only"]


def in_this_process(args, log):
    """Trains as torchrun would, in the tests' own world."""
    trainer = LetTrainer(LetConfigManager().parse_args(args))
    try:
        trainer.train()
        log.write_text(f"{trainer.lr_schedulers.schedulers[0].get_last_lr()[0]}")
    finally:
        trainer.close()


def test_a_tiny_probe_from_end_to_end(lab, capsys):
    let = {"s_stop": 3, "recipe": "paper"}
    file = write_toml(lab.folder / "run.toml", lab.sections(let, training__steps=40))
    args = ["--job.config_file", str(file), "--steps", "4", "--blocks", "1,3"]
    assert main([*args, "--json"], in_this_process) == 0
    report = json.loads(capsys.readouterr().out)
    out = lab.folder / "run" / "probe"
    assert report == json.loads((out / "probe.json").read_text())
    assert [row["block"] for row in report["evidence"]] == [1, 3]
    for row in report["evidence"]:
        lines = [json.loads(x) for x in (out / f"k{row['block']}" / "metrics.jsonl").open()]
        looks = [line["diagnostics"] for line in lines if "diagnostics" in line]
        angles = [look["grad_cosine"][0] for look in looks]
        assert len(looks) == 4 and row["grad_cosine"] == pytest.approx(sum(angles) / 4)
        assert row["cosine_last"] == looks[-1]["block_cosine"][0][row["block"] - 1]
        ended = [line for line in lines if "loss" in line]
        assert row["loss"] == ended[-1]["loss"] and ended[-1]["step"] == 4
        assert {line["lambda"] for line in ended} == {0.5}  # constant
        assert row["loss_gain"] == report["baseline_loss"] - row["loss"]
        # the learning rate of the whole run's first steps: two of warm-up, then a long decay
        assert float((out / f"k{row['block']}.log").read_text()) > 0.9 * 1e-2
    chosen = next(r for r in report["evidence"] if r["block"] == report["proposal"]["k"])
    wanted = 0.5 * 0.02 / chosen["grad_ratio"]
    assert report["proposal"]["lambda_0"] == pytest.approx(wanted, rel=0.06)
    assert report["proposal"]["s_stop"] is None  # four looks are too few to decide
    baseline = [json.loads(line) for line in (out / BASELINE / "metrics.jsonl").open()]
    assert [line["teacher_active"] for line in baseline] == [False] * 4

    assert main(args, in_this_process) == 2
    assert "exists: remove it, or choose another folder" in capsys.readouterr().err
    other = [*args, "--out", str(lab.folder / "other")]
    assert main(other, in_this_process) == 0
    told = capsys.readouterr().out
    assert f"k = {report['proposal']['k']}  # the gradients' cosine there is" in told


@pytest.mark.parametrize(
    "flags",
    [
        ["--let.s_stop_fraction", "0.2"],
        ["--let.s-stop-fraction=0.2"],
        ["--let.s_stop", "5"],
        ["--let.s-stop=5"],
    ],
)
def test_a_trial_has_its_own_s_stop_whatever_the_command_line_says(flags, lab, capsys):
    file = write_toml(lab.folder / "run.toml", lab.sections({}, training__steps=40))
    args = ["--job.config_file", str(file), "--steps", "2", "--blocks", "1", *flags]

    def train(arguments, log):
        let = LetConfigManager().parse_args(arguments).let
        if let.enable:
            raise RunError(f"{let.s_stop}, {let.s_stop_fraction}, {let.lambda_0}")
        folder = log.with_suffix("")
        folder.mkdir()
        (folder / "metrics.jsonl").write_text('{"step": 2, "loss": 5.0}\n')

    assert main([*args, "--let.lambda_0", "0.25"], train) == 1
    assert "2, 0.0, 0.25" in capsys.readouterr().err


def test_trials_begin_with_the_weights_that_the_run_loads_and_save_nothing(lab):
    """From a checkpoint whose weights are zero the first loss is that of a guess, ln(320)."""
    saved = {"checkpoint__enable": True, "checkpoint__folder": "saved"}
    trainer = LetTrainer(lab.config(None, training__steps=1, **saved))
    with torch.no_grad():
        trainer.model_parts[0].output.weight.zero_()
    trainer.checkpointer.save(0, last_step=True)
    trainer.close()
    path = str(lab.folder / "run" / "saved" / "step-0")
    saved["checkpoint__initial_load_path"] = path
    file = write_toml(lab.folder / "run.toml", lab.sections({}, training__steps=40, **saved))
    args = ["--job.config_file", str(file), "--steps", "4", "--blocks", "1"]
    assert main(args, in_this_process) == 0
    for name in (BASELINE, "k1"):
        folder = lab.folder / "run" / "probe" / name
        first = json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])
        assert first["loss"] == pytest.approx(math.log(320), abs=1e-3)
        assert not (folder / "saved").exists()


def test_trials_leave_the_runs_cache_and_checkpoints_alone_and_have_its_learning_rates(lab):
    """A cache's key has the lanes, by default the ranks: the probe's would refuse the run."""
    keys = {"teacher__cache": str(lab.folder / "states"), "checkpoint__enable": True}
    sections = lab.sections({}, training__steps=40, lr_scheduler__total_steps=60, **keys)
    file = write_toml(lab.folder / "run.toml", sections)
    args = ["--job.config_file", str(file), "--steps", "2", "--blocks", "1"]
    found = []

    def train(arguments, log):
        config = LetConfigManager().parse_args(arguments)
        assert config.lr_scheduler.total_steps == 60
        found.append((config.teacher.cache, config.checkpoint.enable))
        leave([5.0, 4.9])(arguments, log)

    assert main(args, train) == 0
    assert found == [("", False)] * 2


def test_weights_are_loaded_from_a_path_or_the_models_own_folder(lab):
    for path, in_hf, enable in itertools.product(("", "some"), (False, True), (False, True)):
        given = {"initial_load_path": path, "initial_load_in_hf": in_hf, "enable": enable}
        config = lab.parsed({}, **{f"checkpoint__{key}": value for key, value in given.items()})
        assert begins_with_weights(config) == (enable and (bool(path) or in_hf))


def test_a_trial_is_trained_by_torchrun_and_its_log_says_why_it_failed(tmp_path, monkeypatch):
    launcher, log = tmp_path / "python", tmp_path / "k1.log"
    launcher.write_text('#!/bin/sh\necho "$@"\necho complaint >&2\nexit $CODE\n')
    launcher.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(launcher))
    monkeypatch.setenv("CODE", "0")
    in_processes(2)(["--let.k", "1"], log)
    command, complaint = log.read_text().splitlines()
    assert command.startswith("-m torch.distributed.run --standalone --nproc_per_node 2 ")
    assert command.endswith("-m let_titan.train --let.k 1") and complaint == "complaint"
    monkeypatch.setenv("CODE", "3")
    with pytest.raises(RunError, match=r"\(exit code 3\): .*k1\.log says why"):
        in_processes(2)([], log)


def leave(losses):
    """Returns what writes a trial's lines, with a look a step."""

    def train(args, log):
        found = {"block_cosine": [[0.1] * 4], "grad_cosine": [0.01], "grad_ratio": [0.05]}
        lines = [{"step": step, "loss": loss} for step, loss in enumerate(losses, start=1)]
        lines += [{"step": line["step"], "diagnostics": found} for line in lines]
        folder = log.with_suffix("")
        folder.mkdir()
        (folder / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))

    return train


def test_a_step_that_was_left_out_has_no_loss_and_a_failed_probe_can_be_repeated(lab, capsys):
    file = write_toml(lab.folder / "run.toml", lab.sections({}, training__steps=40))
    args = ["--job.config_file", str(file), "--steps", "10", "--blocks", "1", "--json"]
    assert main(args, leave([5.0] * 8 + [None, None])) == 1
    assert "No loss of the last 2 in" in capsys.readouterr().err
    out = lab.folder / "run" / "probe"
    assert "No loss of the last 2 in" in (out / "failed").read_text()
    assert main(args, leave([5.0] * 8 + [4.0, None])) == 0
    assert json.loads(capsys.readouterr().out)["baseline_loss"] == 4.0
    (aside,) = out.parent.glob("probe.failed.*")
    assert (aside / BASELINE).is_dir() and not (out / "failed").exists()
    assert main(args, leave([5.0] * 10)) == 2  # a probe that came to its end stays


def trial(block, angles, states=None, ratio=0.2, loss=5.0):
    states = states or [0.1 * i for i in range(len(angles))]
    looks = [
        (
            10 * (i + 1),
            {
                "block_cosine": [[state] * 4],
                "grad_cosine": [angle],
                "grad_ratio": [ratio],
            },
        )
        for i, (angle, state) in enumerate(zip(angles, states, strict=True))
    ]
    return Trial(f"k{block}", block, loss, looks)


def proposed(*trials):
    baseline = Trial(BASELINE, 0, 5.5, [])
    return propose([evidence_of(t, baseline, 0.0, 0.001) for t in trials], 0.1, 0.1, 200)


def test_the_earliest_block_within_the_error_of_the_best():
    early, late = trial(1, [0.1, 0.3] * 6), trial(3, [0.11, 0.31] * 6)
    assert proposed(early, late).k == 1
    far = trial(3, [0.5, 0.7] * 6)
    assert proposed(early, far).k == 3
    assert proposed(early, far).lambda_0 == 0.05  # the ratio was 0.2, and is to be 0.1


def test_s_stop_is_where_auto_stop_would_have_ended_it():
    turned = trial(2, [-0.2] * 12)
    assert proposed(turned).s_stop == 100  # the tenth look
    assert "below let.auto_stop_cosine" in proposed(turned).because["s_stop"]
    flat = trial(2, [0.2] * 15, states=[0.5] * 15)
    assert proposed(flat).s_stop == 110 and "has not risen" in proposed(flat).because["s_stop"]
    assert proposed(trial(2, [0.2] * 15)).s_stop is None


def test_a_look_without_an_angle_does_not_count():
    seen = evidence_of(trial(2, [None, 0.2, 0.2]), Trial(BASELINE, 0, 5.5, []), 0.0, 0.001)
    assert seen.grad_cosine == pytest.approx(0.2) and math.isfinite(seen.grad_cosine_error)
    for angles, looks in (([None], "no"), ([None, 0.2], "1")):
        with pytest.raises(ValueError, match=f"Block 2 has {looks} look with two gradients"):
            evidence_of(trial(2, angles), Trial(BASELINE, 0, 5.5, []), 0.0, 0.001)


def test_the_table_has_a_row_a_block_and_the_proposal_as_toml(capsys):
    baseline = Trial(BASELINE, 0, 5.5, [])
    turned, rising = trial(2, [-0.2] * 12), trial(3, [0.2, 0.4] * 6, ratio=0.004, loss=5.6)
    evidence = [evidence_of(each, baseline, 0.0, 0.001) for each in (turned, rising)]
    assert [cells(row) for row in evidence] == [
        ("2", "-0.2000 ± 0.0000", "0.2", "0.000 -> 1.100", "5.0000", "+0.5000", "100"),
        ("3", "+0.3000 ± 0.0302", "0.004", "0.000 -> 1.100", "5.6000", "-0.1000", "later"),
    ]
    for rows, wanted in (
        (evidence, {"k": 3, "lambda_0": 2.5}),
        (evidence[:1], {"k": 2, "lambda_0": 0.05, "s_stop": 100}),
    ):
        show(evidence, propose(rows, 0.1, 0.1, 200), 200)
        title, _, toml = capsys.readouterr().out.partition("[let]")
        assert tomllib.loads(toml) == wanted
        assert "200 steps a run" in title and toml.count("#") == 3 + ("s_stop" not in wanted)


def test_candidates_are_shares_of_the_student(lab):
    assert candidates(lab.parsed({}), []) == [1, 2]
    assert candidates(lab.parsed({}, model__flavor="1.4B"), []) == [2, 3, 6, 12]
    assert candidates(lab.parsed({}), [4, 1]) == [1, 4]


@pytest.mark.parametrize(
    ("let", "flags", "sentence"),
    [
        ({}, ["--steps", "1"], "of one look no error can be told"),
        ({}, ["--nproc", "0"], "must be at least 1"),
        ({}, ["--blocks", "one"], "must be numbers with commas"),
        ({}, ["--blocks", "5"], "--blocks 5 must lie between 1 and 4"),
        ({}, ["--model.flavor", "bug"], "model.flavor = 'bug' is unknown: choose one of debug"),
        ({}, ["--experimental.custom_import", "none.such"], "'none.such' cannot be imported"),
        ({"lambda_0": 0.0}, [], "has no alignment"),
        ({}, GOES_ON, "goes on at the checkpoint's step"),
        ({"pairs": ["last:2:1"]}, [], "fixes the blocks"),
        ({"alpha": 0.5}, ["--steps", "4"], "let.alpha = 0.5"),
    ],
)
def test_refusals(let, flags, sentence, lab, capsys):
    file = write_toml(lab.folder / "run.toml", lab.sections(let))
    assert main(["--job.config_file", str(file), *flags], in_this_process) == 2
    assert sentence in capsys.readouterr().err
    assert not (lab.folder / "run" / "probe").exists()
