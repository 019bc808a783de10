"""What summary.json says of a run that failed, on whichever rank."""

import os

import pytest
import torch

from let_titan.errors import ConfigError, RunError
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


OUT_OF_MEMORY = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.15 GiB of "
    "which 1.20 GiB is free. Including non-PyTorch memory, this process has 77.9 GiB in use."
)


@pytest.mark.parametrize(
    ("keys", "allocator", "cure"),
    [
        ({}, {}, "set PYTORCH_ALLOC_CONF=expandable_segments:True, or lower"),
        (
            {},
            {"PYTORCH_CUDA_ALLOC_CONF": "a"},
            "): lower training.local_batch_size = 4, or set act",
        ),
        ({"activation_checkpoint__mode": "full"}, {"PYTORCH_ALLOC_CONF": "a"}, "_size = 4. python"),
    ],
    ids=["allocator unset", "allocator set", "full checkpointing"],
)
def test_a_gpu_without_memory_left(keys, allocator, cure, lab, monkeypatch):
    def fail(*args, **kwargs):
        raise torch.OutOfMemoryError(OUT_OF_MEMORY)

    for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):
        monkeypatch.delenv(name, raising=False)
    for name, value in allocator.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(LetTrainer, "forward_backward_step", fail)
    with pytest.raises(RunError, match="A GPU's memory ran out") as raised:
        run(lab.config(None, **keys))
    said = str(raised.value)
    assert cure in said and "GPU 0 has a total capacity of 79.15 GiB" in said
    assert "non-PyTorch" not in said and isinstance(raised.value.__cause__, torch.OutOfMemoryError)
    assert not raised.value.told  # rank 0's is printed by main
    assert read_summary(lab.folder / "run")["exit_state"].startswith("failed: RunError: A GPU's")
    monkeypatch.setattr(LetTrainer, "__init__", fail)
    with pytest.raises(RunError, match="A GPU's memory ran out"):
        run(lab.config(None, **keys))


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (
            torch.OutOfMemoryError(OUT_OF_MEMORY),
            "failed on rank 1: RunError: A GPU's memory ran out (CUDA out of memory.",
        ),
        (MemoryError("none left"), "failed on rank 1: MemoryError: none left"),
        (ConfigError("line 3 is no JSON"), "failed on rank 1: ConfigError: line 3 is no JSON"),
    ],
)
def test_the_rank_that_met_the_cause_tells_it(error, state, assets, tmp_path):
    """Rank 0 learns by a collective that failed, or waits in one until it is killed."""
    met = run_world(2, fail_on_rank_1, tmp_path, assets, tmp_path, error)
    assert met == "RuntimeError"  # gloo's
    assert read_summary(tmp_path / "run")["exit_state"].startswith(state)
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
