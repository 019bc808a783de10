"""What cannot be written is told, and the older checkpoint is whole; what is gone is not missed."""

import shutil
import subprocess
from contextlib import contextmanager
from types import SimpleNamespace
from unittest import mock

import pytest
import torch.distributed as dist

from let_titan.checkpoint import manager
from let_titan.checkpoint.checksums import damaged_files
from let_titan.checkpoint.failures import in_order
from let_titan.collectives import do_where, gathered
from let_titan.errors import ConfigError, RunError
from let_titan.train import LetTrainer
from tests.checkpoints import DAMAGE, LAST, make, steps_of
from tests.resumed import STEPS, train
from tests.support import files_up_to
from tests.world import run_world


@contextmanager
def small_disk(folder):
    """A file system of 8 MiB at ``folder``: room for two checkpoints of the tiny student."""
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("only root may mount a small file system")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


SMALL = 2 << 20
"""Bytes: a checkpoint of the student has 3 MiB."""


@pytest.mark.parametrize("mode", ["disabled", "async"])
def test_a_full_disk_is_told_and_the_older_checkpoint_is_whole(mode, finished, lab):
    changes = {"checkpoint__async_mode": mode}
    with small_disk(lab.folder / "run"):
        checkpoints = lab.folder / "run" / "checkpoint"
        with pytest.raises(RunError, match=r"no space left on the device\); \S+step-2 is whole\."):
            train(lab, **changes)
        assert steps_of(checkpoints) == [1, 2]
        assert damaged_files(checkpoints / "step-2") == []
        shutil.rmtree(checkpoints / "step-1")  # room for one more
        with pytest.raises(RunError, match=r"step-3 is whole"):
            train(lab, **changes)
        shutil.rmtree(checkpoints / "step-2")
        resumed = train(lab, checkpoint__interval=STEPS, **changes)
        assert resumed["lines"] == finished[1]["lines"]


@pytest.mark.parametrize("mode", ["disabled", "async"])
def test_a_save_that_fails_in_any_other_way_is_told(mode, lab):
    told = r"File too large.*there is no older one\."
    with files_up_to(SMALL), pytest.raises(RunError, match=told):
        train(lab, checkpoint__async_mode=mode)


def test_a_stops_save_that_fails_in_the_background_is_told(lab):
    trainer = LetTrainer(lab.config(checkpoint__enable=True, checkpoint__async_mode="async"))
    told = r"A checkpoint could not be written .*File too large.*there is no older one\."
    with files_up_to(SMALL), pytest.raises(RunError, match=told):
        trainer.checkpointer.save_now(1)
    trainer.close()


@pytest.mark.parametrize("error", [OSError, RuntimeError])
def test_what_fails_outside_of_dcps_own_steps_is_told(error, lab, monkeypatch):
    """As files for Hugging Face, and memory to stage in, of which a container has little."""
    trainer = LetTrainer(lab.config(checkpoint__enable=True))
    monkeypatch.setattr(manager.dcp, "save", mock.Mock(side_effect=error("no room")))
    with pytest.raises(RunError, match=rf"of step 9 could not be written .*\({error.__name__}: no"):
        trainer.checkpointer.save(9, last_step=True)
    trainer.close()


def test_the_last_good_checkpoint_may_be_on_its_way(lab):
    trainer = LetTrainer(lab.config(checkpoint__enable=True, checkpoint__async_mode="async"))
    checkpointer = trainer.checkpointer
    written = mock.Mock(side_effect=lambda: make(checkpointer.path, "step-1/.metadata"))
    checkpointer.save_future = SimpleNamespace(result=written)
    assert checkpointer.last_good() == checkpointer.path / "step-1"
    trainer.close()


def test_an_old_checkpoint_that_may_not_be_deleted_stays(lab, monkeypatch):
    """As one of another user's, who began the run."""
    monkeypatch.setattr(manager, "tear", mock.Mock(side_effect=PermissionError(13, "denied")))
    told = []
    monkeypatch.setattr(manager.logger, "warning", told.append)
    train(lab, checkpoint__keep_latest_k=2, checkpoint__interval=2)
    checkpoints = lab.folder / "run" / "checkpoint"
    assert steps_of(checkpoints) == [2, 4, 6]
    assert f"{checkpoints / 'step-2'} cannot be deleted (denied): it stays." in told


def test_metrics_that_cannot_be_written_are_told(lab):
    (lab.folder / "run").mkdir()
    (lab.folder / "run" / "metrics.jsonl").symlink_to(lab.folder / "gone" / "metrics.jsonl")
    with pytest.raises(RunError, match=r"metrics\.jsonl cannot be written \(No such file or di"):
        train(lab)


def test_a_teacher_that_vanishes_in_the_middle_of_a_run_is_not_missed(finished, lab, monkeypatch):
    teacher = lab.folder / "teacher"
    shutil.copytree(lab.assets / "teacher", teacher)
    step = LetTrainer.train_step

    def vanish_after_step_1(self, iterator):
        step(self, iterator)
        shutil.rmtree(teacher, ignore_errors=True)

    monkeypatch.setattr(LetTrainer, "train_step", vanish_after_step_1)
    assert train(lab, teacher__checkpoint=str(teacher))["lines"] == finished[1]["lines"]
    assert not teacher.exists()


def test_its_own_checkpoint_is_what_is_checked_beside_an_initial_one(finished, lab):
    step = lab.folder / "run" / "checkpoint" / LAST
    shutil.copytree(finished[0], lab.folder / "run")
    start = shutil.copytree(step, lab.folder / "start")
    DAMAGE["flipped byte"](step / "__0_0.distcp")
    keys = {"enable": True, "initial_load_path": str(start)}
    changes = {f"checkpoint__{key}": value for key, value in keys.items()}
    trainer = LetTrainer(lab.parsed(None, **changes))
    with pytest.raises(ConfigError, match=rf"run/checkpoint/{LAST}' is damaged: __0_0"):
        trainer.checkpointer.load()
    trainer.close()


def test_what_one_rank_alone_meets_ends_every_rank(tmp_path):
    told = run_world(2, meet, tmp_path)
    assert told == [
        "ConfigError: The checkpoints cannot be put in order (no room): mend the folder.",
        "ConfigError: The checkpoints cannot be put in order (no room): mend the folder.",
        "RunError: Rank 1 failed (KeyError: 'a defect').",
        "KeyError: 'a defect'",
    ]


def meet():
    """Returns what both ranks meet of an OSError on rank 0 and of a defect on rank 1."""
    found = []
    for rank, error in enumerate((OSError("no room"), KeyError("a defect"))):

        def fail(error=error):
            raise error

        try:
            do_where(dist.get_rank() == rank, in_order()(fail))
        except (ConfigError, RunError, KeyError) as met:
            found += gathered(f"{type(met).__name__}: {met}")
    return found
