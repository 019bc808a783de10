"""Checkpoints that are written while the run goes on, and what ranks see of one folder."""

import shutil

import pytest
import torch
from torch.distributed.checkpoint.staging import DefaultStager

from let_titan.checkpoint import folders, manager
from let_titan.checkpoint.checksums import damaged_files
from let_titan.collectives import gathered
from let_titan.errors import ConfigError, RunError
from let_titan.train import LetTrainer
from tests.checkpoints import DAMAGE, LAST, cut
from tests.layouts import FSDP
from tests.resumed import STEPS, train
from tests.support import Lab
from tests.world import run_world


@pytest.mark.parametrize("mode", ["async", "async_with_pinned_mem"])
def test_background_saves_resume_exactly(mode, finished, lab, monkeypatch):
    changes, writers, writer = {"checkpoint__async_mode": mode}, [], manager.ChecksumWriter
    monkeypatch.setattr(
        manager, "ChecksumWriter", lambda path: writers.append(writer(path)) or writers[-1]
    )
    whole = train(lab, **changes)
    # But for the last save, what would be copied ahead from a GPU lies on the host already.
    assert {each.per_thread_copy_ahead for each in writers[:-1]} == {0}
    assert whole["lines"] == finished[1]["lines"]
    paths = folders.whole_checkpoints(lab.folder / "run" / "checkpoint").values()
    assert [damaged_files(path) for path in paths] == [[]] * STEPS
    cut(lab.folder / "run", 3)
    resumed = train(lab, **changes)
    assert resumed["lines"] == whole["lines"]
    for part in ("weights", "optimizer"):
        for name, wanted in finished[1][part].items():
            assert torch.equal(resumed[part][name], wanted), name


class StagesOnce(DefaultStager):
    """As torch 2.11's and 2.12's (pytorch issue 183413)."""

    open = 0

    def __init__(self, options):
        super().__init__(options)
        self.used = False
        StagesOnce.open += 1

    def close(self):
        super().close()
        StagesOnce.open -= 1

    def stage(self, *args, **kwargs):
        if self.used:
            raise KeyError(type)
        self.used = True
        return super().stage(*args, **kwargs)


def test_a_stager_that_stages_once_is_made_anew_for_each_save(lab, monkeypatch):
    monkeypatch.setattr(manager, "DefaultStager", StagesOnce)
    pinned = {"checkpoint__async_mode": "async_with_pinned_mem"}
    if not manager.STAGES_ONCE:
        with pytest.raises((RunError, KeyError)):
            train(lab, **pinned)
        shutil.rmtree(lab.folder / "run")
        monkeypatch.setattr(manager, "STAGES_ONCE", True)
    StagesOnce.open = 0
    train(lab, **pinned)
    assert len(folders.whole_checkpoints(lab.folder / "run" / "checkpoint")) > 2
    assert StagesOnce.open <= 1  # each has a copy of the run's state


def test_the_optimizer_is_waited_for_before_its_step_is_staged(lab, monkeypatch):
    """A GPU may be at its kernels yet, for which the stager's own stream does not wait."""
    done = []
    keys = {"checkpoint__enable": True, "checkpoint__async_mode": "async_with_pinned_mem"}
    trainer = LetTrainer(lab.config({}, **keys))
    checkpointer = trainer.checkpointer
    monkeypatch.setattr(manager, "STAGES_ONCE", False)
    monkeypatch.setattr(manager, "HAS_ACCELERATOR", True)
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda: done.append("waited"))
    monkeypatch.setattr(manager.dcp, "async_save", lambda *_, **__: done.append("staged"))
    checkpointer.dcp_save({}, str(lab.folder / "step-1"), checkpointer.async_mode)
    monkeypatch.undo()
    trainer.close()
    assert done == ["waited", "staged"]


def on_two_ranks(assets, folder):
    """Async on two ranks, then from step 3, then with a shard damaged; rank 0 does the damage."""
    lab, rank = Lab(assets, folder), torch.distributed.get_rank()
    results = {"whole": train(lab, checkpoint__async_mode="async")["lines"]}
    if rank == 0:
        cut(folder / "run", 3)
    torch.distributed.barrier()
    results["resumed"] = train(lab, checkpoint__async_mode="async")["lines"]
    torch.distributed.barrier()
    if rank == 0:
        for name in ("__0_0.distcp", "__1_0.distcp"):  # of which each rank reads one
            DAMAGE["flipped byte"](folder / "run" / "checkpoint" / LAST / name)
    torch.distributed.barrier()
    try:
        train(lab)
    except ConfigError as error:
        told: list[str | None] = [None, None]
        torch.distributed.all_gather_object(told, str(error))
        results["told"] = told
    return results


def test_two_ranks_save_in_the_background_and_both_tell_of_damage(assets, tmp_path):
    results = run_world(2, on_two_ranks, tmp_path, assets, tmp_path)
    assert results["resumed"] == results["whole"]
    assert results["told"][0] == results["told"][1]
    assert "damaged: __0_0.distcp, __1_0.distcp are missing" in results["told"][0]


def see_late(assets, folder, for_good):
    """Rank 1 sees the checkpoint only after some looks, as through NFS. Returns what each met."""
    lab, rank = Lab(assets, folder), torch.distributed.get_rank()
    looks, real = [0], folders.whole_checkpoints

    def late(path):
        looks[0] += 1
        return {} if rank == 1 and (for_good or looks[0] < 4) else real(path)

    manager.whole_checkpoints = late
    manager.PATIENCE_S, manager.LOOK_AGAIN_S = 0.2 if for_good else 60.0, 0.05
    trainer = LetTrainer(
        lab.config(None, training__local_batch_size=2, checkpoint__enable=True, **FSDP)
    )
    try:
        trainer.checkpointer.load()
        return gathered(trainer.step)
    except ConfigError as error:
        return gathered(str(error))
    finally:
        trainer.close()


@pytest.mark.parametrize("for_good", [False, True])
def test_all_ranks_load_what_rank_0_sees(for_good, finished, assets, tmp_path):
    shutil.copytree(finished[0], tmp_path / "run")
    steps = [int(LAST.removeprefix("step-"))] * 2
    met = run_world(2, see_late, tmp_path, assets, tmp_path, for_good)
    if for_good:
        assert met[0] == met[1] and "Rank 1 sees other checkpoints in" in met[0]
    else:
        assert met == steps
