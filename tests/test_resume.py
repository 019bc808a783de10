"""Resume from DCP before, at and after s_stop: bit for bit the run that was not interrupted."""

import json
import shutil

import pytest

from let_titan.errors import ConfigError
from tests.resumed import S_STOP, STEPS, assert_resumes_exactly, train, uninterrupted_and_resumed
from tests.support import run_world


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
