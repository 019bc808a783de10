"""The teacher's life beside a student: trained by nobody, saved by nobody, gone after s_stop."""

import gc
import os
import time
import weakref

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.tensor import DTensor

from let_titan.train import LetTrainer
from tests.support import Lab, clean_name, use_fixed_batches
from tests.world import run_world


def life(assets, folder, placement, compiled):
    """Trains beyond s_stop = 2; returns what was seen of the teacher on the way.

    The student is fp32 throughout, so every bf16 tensor of the process is the teacher's.
    """
    lab = Lab(assets, folder)
    config = lab.config(
        {"s_stop": 2},
        teacher__placement=placement,
        teacher__dtype="bfloat16",
        compile__enable=compiled,
        checkpoint__enable=True,
        checkpoint__interval=1,
        training__steps=3,
    )
    trainer = LetTrainer(config)
    ranks = trainer.parallel_dims.world_size
    batches = use_fixed_batches(trainer, rows=config.training.local_batch_size * ranks)
    gc.collect()
    others = bf16_tensors()  # what earlier tests may have left
    seen = {}
    for step in (1, 2, 3):
        trainer.step = step
        trainer.train_step(batches)
        trainer.checkpointer.save(step)
        if step == 1:
            model = trainer.phase.slot.teacher.model
            parts = [*model.modules(), *model.parameters(), *model.buffers()]
            watched = [weakref.ref(part) for part in parts]
            trained = {id(p) for group in trainer.optimizers.param_groups for p in group["params"]}
            seen["in the optimizer"] = any(id(p) in trained for p in model.parameters())
            seen["unchanged by step 1"] = weights_of(model) == weights_of(reloaded(trainer))
            del model, parts
        seen[f"alive after {step}"] = sum(reference() is not None for reference in watched)
        seen[f"bf16 after {step}"] = bf16_tensors() - others
        seen[f"groups after {step}"] = len(dist.distributed_c10d._world.pg_names)
    reader = FileSystemReader(folder / "run" / "checkpoint" / "step-1")
    seen["saved"] = set(reader.read_metadata().state_dict_metadata)
    seen["student"] = {name for name, _ in trainer.model_parts[0].named_parameters()}
    trainer.close()
    return seen


def reloaded(trainer) -> nn.Module:
    slot = trainer.phase.slot
    kept = slot.teacher
    trainer.phase.load()
    fresh, slot.teacher = slot.teacher, kept
    return fresh.model


def weights_of(model: nn.Module) -> list[bytes]:
    """Returns the bytes of this rank's part of every weight."""
    parts = [p.to_local() if isinstance(p, DTensor) else p for p in model.parameters()]
    return [part.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes() for part in parts]


def bf16_tensors() -> int:
    """Counts those with storage: the compiler keeps fake ones."""
    return sum(
        isinstance(item, torch.Tensor)
        and not isinstance(item, FakeTensor)
        and item.dtype == torch.bfloat16
        for item in gc.get_objects()
    )


def assert_comes_and_goes(seen):
    assert not seen["in the optimizer"]
    assert seen["unchanged by step 1"]
    assert seen["alive after 1"] > 30 and seen["bf16 after 1"] > 10
    assert seen["alive after 2"] == seen["bf16 after 2"] == 0
    assert seen["alive after 3"] == seen["bf16 after 3"] == 0
    students = {clean_name(name) for name in seen["student"]}
    names = {key.removeprefix("optimizer.state.") for key in seen["saved"] if "weight" in key}
    names -= {key for key in names if key.startswith("optimizer.param_groups.")}
    assert {
        name.removesuffix(".exp_avg").removesuffix(".exp_avg_sq").removesuffix(".step")
        for name in names
    } == students


@pytest.mark.parametrize(
    "compiled", [False, pytest.param(True, marks=pytest.mark.gpu)], ids=["eager", "compile"]
)
def test_beside_a_student_in_one_process(compiled, assets, tmp_path):
    assert_comes_and_goes(life(assets, tmp_path, "replicate", compiled))


def test_what_its_load_takes_is_in_no_window(lab, monkeypatch):
    trainer = LetTrainer(lab.config({}))
    load, loaded = trainer.phase.load, []

    def noting(start):
        load(start)
        loaded.append(time.perf_counter())

    monkeypatch.setattr(trainer.phase, "load", noting)
    trainer._begin(0)
    trainer.close()
    assert loaded[0] <= trainer.metrics_processor.time_last_log


def test_what_it_frees_is_told_without_the_garbage_of_others(lab, monkeypatch):
    trainer, done = LetTrainer(lab.config({})), []
    for module in ("phase", "teacher_slot"):
        place = f"let_titan.let.{module}.free_cached_memory"
        monkeypatch.setattr(place, lambda: done.append("freed"))
    monkeypatch.setattr("let_titan.let.phase.memory_gib", lambda: done.append("looked"))
    trainer.phase.load()
    trainer.phase.release()
    trainer.close()
    assert done == ["freed", "looked", "freed", "looked"]


def test_what_its_leave_takes_is_in_no_window(lab, monkeypatch):
    """The step of s_stop is logged before the teacher leaves, and a window begins after it.

    Nor is the memory that the teacher took in the next window's peak.
    """
    trainer = LetTrainer(lab.config({"s_stop": 2}))
    release, train_step, left, begun = trainer.phase.release, trainer.train_step, [], []
    monitor, resets = trainer.metrics_processor.device_memory_monitor, []
    monkeypatch.setattr(monitor, "reset_peak_stats", lambda: resets.append(time.perf_counter()))

    def noting():
        figures = release()
        left.append(time.perf_counter())
        return figures

    def stepping(batches):
        begun.append(trainer.metrics_processor.time_last_log)
        train_step(batches)

    monkeypatch.setattr(trainer.phase, "release", noting)
    monkeypatch.setattr(trainer, "train_step", stepping)
    try:
        trainer.train()
    finally:
        trainer.close()
    assert len(left) == 1 and begun[1] < left[0] <= begun[2]
    assert any(left[0] <= reset <= begun[2] for reset in resets)


@pytest.mark.parametrize(
    ("enable", "components", "asked", "compiled"),
    [
        (True, ["loss"], True, True),
        (True, ["model", "loss"], True, True),
        (True, ["model", "loss"], False, False),
        (False, ["model", "loss"], True, False),
    ],
)
def test_its_blocks_are_compiled_by_a_key_of_their_own(enable, components, asked, compiled, lab):
    """The student's are no matter: under tensor parallelism the loss alone may be compiled."""
    keys = {"enable": enable, "components": components, "backend": "eager"}
    changes = {f"compile__{key}": value for key, value in keys.items()}
    trainer = LetTrainer(lab.config({}, **changes, teacher__compile=asked))
    trainer.phase.load()
    facts = trainer.phase.facts()
    trainer.close()
    assert facts["compiled"] == compiled


PLACEMENTS = {"replicate": True, "shard": True, "node": False}
"""Whether each is compiled."""


def all_placements(assets, folder):
    os.environ["LOCAL_WORLD_SIZE"] = "2"
    return {name: life(assets, folder / name, name, c) for name, c in PLACEMENTS.items()}


def test_beside_a_student_under_fsdp_and_compile(assets, tmp_path):
    """The group of a node's ranks leaves with the teacher; those of the layout stay."""
    for name in PLACEMENTS:
        (tmp_path / name).mkdir()
    for name, seen in run_world(2, all_placements, tmp_path, assets, tmp_path).items():
        assert_comes_and_goes(seen)
        groups = [seen[f"groups after {step}"] for step in (1, 2, 3)]
        assert [groups[0] - n for n in groups] == [0, *(2 * [int(name == "node")])], name
