"""What summary.json says of a run that failed, on whichever rank."""

import os

import pytest
import torch

from let_titan.errors import ConfigError
from let_titan.train import LetTrainer, run
from tests.layouts import FSDP
from tests.run_files import read_summary
from tests.support import Lab
from tests.test_run_folder import validated
from tests.world import run_world


def test_a_failed_run_says_so(lab, monkeypatch):
    step = LetTrainer.forward_backward_step

    def fail(trainer, **kwargs):
        if trainer.step == 3:
            raise RuntimeError("the lights went out")
        return step(trainer, **kwargs)

    monkeypatch.setattr(LetTrainer, "forward_backward_step", fail)
    with pytest.raises(RuntimeError):
        run(lab.config(None, **validated(lab)))
    summary = read_summary(lab.folder / "run")
    assert summary["exit_state"] == "failed: RuntimeError: the lights went out"
    assert summary["final_val_loss"] is not None


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (MemoryError("none left"), "failed on rank 1: MemoryError: none left"),
        (ConfigError("line 3 is no JSON"), "failed on rank 1: ConfigError: line 3 is no JSON"),
    ],
)
def test_the_rank_that_met_the_cause_tells_it(error, state, assets, tmp_path):
    """Rank 0 learns by a collective that failed, or waits in one until it is killed."""
    met = run_world(2, fail_on_rank_1, tmp_path, assets, tmp_path, error)
    assert met == "RuntimeError"  # gloo's
    assert read_summary(tmp_path / "run")["exit_state"] == state
    assert not list((tmp_path / "run").glob("*.tmp"))


def fail_on_rank_1(assets, folder, error):
    """Leaves what rank 0 met in the world's result, and the world as main does: at once."""
    step, rank = LetTrainer.forward_backward_step, torch.distributed.get_rank()

    def fail(trainer, **kwargs):
        if trainer.step == 3 and rank == 1:
            raise error
        return step(trainer, **kwargs)

    LetTrainer.forward_backward_step = fail
    try:
        run(Lab(assets, folder).config(None, **FSDP))
    except Exception as met:
        if rank == 0:
            torch.save(type(met).__name__, folder / "result.pt")
        os._exit(0)
