"""Resume from DCP before, at and after s_stop: bit for bit the run that was not interrupted."""

import json
import shutil

import pytest
import torch

from let_titan.checks import find_mistakes
from let_titan.errors import ConfigError
from let_titan.runs import Run
from let_titan.train import LetTrainer
from tests.checkpoints import cut, make, steps_of
from tests.resumed import (
    S_STOP,
    SAVED,
    STEPS,
    assert_resumes_exactly,
    train,
    uninterrupted_and_resumed,
)
from tests.support import Lab
from tests.world import run_world

CHANGED = {
    "optimizer__lr": 3e-3,
    "optimizer__beta1": 0.8,
    "optimizer__beta2": 0.97,
    "optimizer__eps": 1e-7,
    "optimizer__weight_decay": 0.3,
}


def test_on_one_process(assets, tmp_path):
    assert_resumes_exactly(uninterrupted_and_resumed(assets, tmp_path))


def test_on_two_ranks(assets, tmp_path):
    assert_resumes_exactly(run_world(2, uninterrupted_and_resumed, tmp_path, assets, tmp_path))


def test_from_s_stop_on_no_teacher_is_needed(lab):
    teacher = lab.folder / "teacher"
    shutil.copytree(lab.assets / "teacher", teacher)
    changes = {"teacher__checkpoint": str(teacher)}
    whole = train(lab, **changes)
    shutil.rmtree(teacher)
    checkpoints = lab.folder / "run" / "checkpoint"
    for step in range(S_STOP + 1, STEPS + 1):
        shutil.rmtree(checkpoints / f"step-{step}")
    assert train(lab, **changes)["lines"] == whole["lines"]
    shutil.rmtree(checkpoints)
    with pytest.raises(ConfigError, match="does not exist"):
        train(lab, **changes)


def test_a_run_killed_before_its_last_validation_is_completed(finished, lab):
    """The last checkpoint is there, so no step is left; what comes after it still is."""
    whole, run = finished[1], lab.folder / "run"
    shutil.copytree(finished[0], run)
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    assert "val_loss" in json.loads(lines[-1])
    (run / "metrics.jsonl").write_text("".join(lines[:-1]))
    summary = json.loads((run / "summary.json").read_text())
    (run / "summary.json").write_text(json.dumps({**summary, "exit_state": "running"}))
    assert train(lab)["lines"] == whole["lines"]
    assert json.loads((run / "summary.json").read_text())["exit_state"] == "completed"
    before = (run / "metrics.jsonl").stat().st_mtime_ns
    assert train(lab)["lines"] == whole["lines"]
    assert (run / "metrics.jsonl").stat().st_mtime_ns == before  # now there is nothing to do


def test_a_finished_run_writes_the_summary_that_it_lost(finished, lab):
    """As where a damaged one was moved away: to resume is what the tools that need it advise."""
    run = lab.folder / "run"
    shutil.copytree(finished[0], run)
    (run / "summary.json").write_text("{")
    with pytest.raises(ValueError, match="move it away and resume the run, which writes it anew"):
        Run.load(run)
    (run / "summary.json").unlink()
    assert train(lab)["lines"] == finished[1]["lines"]
    found = Run.load(run)
    assert found.fact("exit_state") == "completed"
    # What it cannot know any more, it does not deny.
    assert found.fact("lost_before") == STEPS and found.fact("teacher") == {"unknown": True}


def test_a_run_may_leave_validation_out_for_a_while(lab):
    """A config without the section has that of another measure, by which nothing was read."""
    read = {"validation__dataset_path": str(lab.assets / "validation.jsonl")}
    without = {key: value for key, value in SAVED.items() if not key.startswith("validation")}
    train(lab, training__steps=4)
    for steps, keys in ((5, without), (6, {**SAVED, **read})):
        config = lab.parsed({"s_stop": S_STOP}, **{**keys, "training__steps": steps})
        assert find_mistakes(config, 1) == []
        trainer = LetTrainer(config)
        try:
            trainer.train()
        finally:
            trainer.close()
    other = lab.parsed({"s_stop": S_STOP}, **{**SAVED, **read, "validation__seq_len": 32})
    assert "validation read sequences of 64 tokens" in str(find_mistakes(other, 1)[0])


def test_an_extended_run_keeps_the_validation_of_its_old_end(lab):
    """No validation is due there any more, so the line would not come back."""
    for steps, validated in ((4, [0, 3, 4]), (6, [0, 3, 4, 6])):
        lines = train(lab, training__steps=steps, validation__freq=3)["lines"]
        assert [line["step"] for line in lines if "val_loss" in line] == validated


def test_a_run_that_only_loads_leaves_the_checkpoints_as_they_are(finished, lab):
    run = shutil.copytree(finished[0], lab.folder / "run")
    cut(run, 4)
    make(run, "checkpoint/step-99/__0_0.distcp")  # torn, or another run is at it
    before = sorted((run / "checkpoint").rglob("*"))
    found = train(lab, checkpoint__load_only=True, checkpoint__keep_latest_k=2)
    assert found["lines"] == finished[1]["lines"]
    assert sorted((run / "checkpoint").rglob("*")) == before


def test_a_start_from_step_0_leaves_all_others_aside(finished, lab):
    checkpoints = lab.folder / "run" / "checkpoint"
    shutil.copytree(finished[0], lab.folder / "run")
    (checkpoints / "step-1").rename(checkpoints / "step-0")
    trainer = LetTrainer(lab.parsed({"s_stop": S_STOP}, **{**SAVED, "validation__enable": False}))
    assert trainer.checkpointer.load(0)
    trainer.close()
    assert trainer.step == 0 and steps_of(checkpoints) == [0]


def changed_on_the_way(assets, folder, first, others):
    """Goes on from step 2 of a run of ``first`` with other settings, and has them from step 1.

    Returns:
        What both came to.
    """
    lab, fresh = Lab(assets, folder), Lab(assets, folder / "fresh")
    train(lab, **{**others, **first})
    if torch.distributed.get_rank() == 0:
        cut(folder / "run", 2)
        fresh.folder.mkdir()
    torch.distributed.barrier()
    return train(lab, **others, **CHANGED), train(fresh, **others, **CHANGED)


def assert_has_the_new_settings(resumed, fresh):
    def rates(run):
        return {
            line["step"]: line["lr"] for line in run["lines"] if "lr" in line and line["step"] > 2
        }

    assert resumed["settings"] == fresh["settings"]
    assert resumed["settings"][0]["weight_decay"] == 0.3
    assert rates(resumed) == rates(fresh)
    wanted = fresh["weights"]
    assert any(not torch.equal(resumed["weights"][name], wanted[name]) for name in wanted)


@pytest.mark.parametrize(
    ("first", "others"),
    [
        ({}, {}),
        ({"optimizer__name": "Adam", "lr_scheduler__decay_ratio": 0.2}, {}),
        ({}, {"optimizer__implementation": "for-loop", "let__width_map": "linear"}),
    ],
)
def test_with_another_rate_and_decay(first, others, assets, tmp_path):
    assert_has_the_new_settings(*changed_on_the_way(assets, tmp_path, first, others))


def test_with_another_rate_in_every_stage_of_a_pipeline(assets, tmp_path):
    stages = {
        "parallelism__pipeline_parallel_degree": 2,
        "parallelism__pipeline_parallel_schedule": "Interleaved1F1B",
    }
    resumed, fresh = run_world(2, changed_on_the_way, tmp_path, assets, tmp_path, {}, stages)
    assert len(resumed["settings"]) == 2
    assert_has_the_new_settings(resumed, fresh)
