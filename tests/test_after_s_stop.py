"""After s_stop a LET run is its baseline: the same ops in the same order, and the same memory."""

import gc
from collections import Counter
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from let_titan.train import LetTrainer
from tests.support import use_fixed_batches

LET = {"s_stop": 1}
CASES = {
    "eager": {},
    "accumulation, full AC": {
        "training__local_batch_size": 2,
        "training__global_batch_size": 8,
        "activation_checkpoint__mode": "full",
    },
}
COMPILED = {"compile__enable": True, "compile__backend": "aot_eager"}
TEACHER_BYTES = 4 * 50_000
"""Less than the test's teacher has in fp32."""


class MemoryTrace(TorchDispatchMode):
    """While active, notes each op, and every storage that an op takes or gives.

    Attributes:
        ops: names with their overloads, in order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ops: list[str] = []
        self._storages = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.ops.append(str(func))
        for leaf in tree_leaves((args, kwargs, out)):
            if isinstance(leaf, torch.Tensor):
                self._storages[leaf.untyped_storage()] = None
        return out

    def live_bytes(self) -> int:
        """Returns the bytes of the storages that something still holds."""
        gc.collect()
        return sum(storage.nbytes() for storage in self._storages)


def train_steps(trainer, batches, *steps):
    for step in steps:
        trainer.step = step
        trainer.train_step(batches)


def third_step(config):
    """Trains three steps; returns the third's ops, and the bytes that live after it."""
    with MemoryTrace() as trace:
        trainer = LetTrainer(config)
        try:
            batches = use_fixed_batches(trainer)
            train_steps(trainer, batches, 1, 2)
            trace.ops.clear()
            train_steps(trainer, batches, 3)
            return list(trace.ops), trace.live_bytes()
        finally:
            trainer.close()


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_ops_and_memory_are_the_baselines(changes, lab):
    seen = {"teacher_norm": "standardize", "width_map": "procrustes"}  # whose sums go, too
    ops, held = third_step(lab.config({**LET, **seen}, **changes))
    wanted, wanted_held = third_step(lab.config(None, **changes))
    assert ops == wanted
    assert held == wanted_held


def test_the_trace_sees_a_teacher(lab):
    """While it is there, ops and memory are more."""
    ops, held = third_step(lab.config({"s_stop": 4}))
    wanted, wanted_held = third_step(lab.config(None))
    assert Counter(ops) > Counter(wanted)
    assert held - wanted_held > TEACHER_BYTES


def profiled_third_step(config):
    """As ``third_step``, by what the profiler sees: compiled regions, too."""
    trainer = LetTrainer(config)
    try:
        batches = use_fixed_batches(trainer)
        train_steps(trainer, batches, 1, 2)
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            train_steps(trainer, batches, 3)
        return Counter(event.name for event in profiler.events())
    finally:
        trainer.close()


def test_what_is_compiled_is_the_baselines(lab):
    found = profiled_third_step(lab.config(LET, **COMPILED))
    wanted = profiled_third_step(lab.config(None, **COMPILED))
    assert found == wanted
    assert any("Compiled" in name for name in wanted)


def test_a_profile_shows_what_let_takes(lab):
    """The teacher's forward and the alignment's backward, in each microbatch."""
    of_let = {"let_titan::teacher", "_InjectBackward"}
    changes = CASES["accumulation, full AC"]
    found = profiled_third_step(lab.config({"s_stop": 4}, **changes))
    assert all(found[name] == 4 for name in of_let)
    assert not of_let & profiled_third_step(lab.config(LET, **changes)).keys()


def allocated_by_third_step(config):
    """Returns the GPU's bytes after the third step and at its peak, beyond those before the run."""
    gc.collect()
    before = torch.cuda.memory_allocated()
    trainer = LetTrainer(config)
    try:
        batches = use_fixed_batches(trainer)
        train_steps(trainer, batches, 1, 2)
        torch.cuda.reset_peak_memory_stats()
        train_steps(trainer, batches, 3)
        gc.collect()
        return (
            torch.cuda.memory_allocated() - before,
            torch.cuda.max_memory_allocated() - before,
        )
    finally:
        trainer.close()


@pytest.mark.gpu
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compile"])
def test_a_gpus_memory_is_the_baselines(compiled, lab):
    changes = {"compile__enable": compiled, "training__mixed_precision_param": "bfloat16"}
    allocated_by_third_step(lab.config(None, **changes))  # libraries take their workspaces
    held, peak = allocated_by_third_step(lab.config(LET, **changes))
    wanted, wanted_peak = allocated_by_third_step(lab.config(None, **changes))
    assert held == pytest.approx(wanted, abs=TEACHER_BYTES / 10)
    assert peak == pytest.approx(wanted_peak, abs=TEACHER_BYTES / 10)
    taught, _ = allocated_by_third_step(lab.config({"s_stop": 4}, **changes))
    assert taught - wanted > TEACHER_BYTES
