"""The teacher does what its FLOPs say and no more: its trace, op by op."""

import copy

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils._python_dispatch import TorchDispatchMode

from let_titan.teacher.description import describe
from let_titan.teacher.load import build_without_weights, compile_blocks, materialise
from let_titan.teacher.model import Teacher
from tests.support import relative_error
from tests.teachers import CONFIGS, load, tokens

SYNCS = ("_local_scalar_dense", "item", "nonzero", "is_nonzero", "equal")


class Trace(TorchDispatchMode):
    """Notes each op's name and its results' shapes and dtypes."""

    def __init__(self) -> None:
        super().__init__()
        self.ops: list[tuple[str, list[torch.Tensor]]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        results = out if isinstance(out, tuple | list) else [out]
        name = func.__name__.partition(".")[0]
        self.ops.append((name, [r for r in results if isinstance(r, torch.Tensor)]))
        return out


def as_teacher(model, layers) -> Teacher:
    return Teacher(model, layers, describe(model, "teacher", layers, model.dtype, seq_len=48))


def traced(name: str, length: int) -> list[tuple[str, list[torch.Tensor]]]:
    # a copy: transformers notes the dtype in it
    model = build_without_weights(copy.deepcopy(CONFIGS[name]), torch.bfloat16, False)
    materialise(model, torch.device("cpu"))
    teacher, ids = as_teacher(model, ["last"]), tokens(length)
    with Trace() as trace:
        teacher(ids)
    return trace.ops


@pytest.mark.parametrize("name", CONFIGS)
def test_no_mask_no_cache_no_logits_no_sync(name):
    length = 127  # so that S * S is nobody else's size
    ops = traced(name, length)
    assert sum("scaled_dot_product" in op for op, _ in ops) == CONFIGS[name].num_hidden_layers
    assert not [op for op, _ in ops if op in SYNCS]
    for op, results in ops:
        assert not any(t.numel() % (length * length) == 0 for t in results), op
        assert not any(t.shape[-1] == CONFIGS[name].vocab_size for t in results if t.ndim), op


@pytest.mark.parametrize("name", CONFIGS)
def test_no_fp32_copy_of_the_states_but_in_the_norms(name):
    norms = 2 * CONFIGS[name].num_hidden_layers + 1
    wide = [
        op
        for op, results in traced(name, 48)
        if any(t.dtype == torch.float32 and t.shape == (3, 48, 32) for t in results)
    ]
    assert wide.count("_to_copy") == (norms if name == "llama" else 0)  # LayerNorm is one kernel
    assert set(wide) <= {"_to_copy", "pow", "mul"}


@pytest.mark.parametrize("name", CONFIGS)
def test_compiled_blocks_are_one_graph_with_the_same_states(name):
    torch.manual_seed(5)
    model = build_without_weights(copy.deepcopy(CONFIGS[name]), torch.float32, False)
    materialise(model, torch.device("cpu"))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    teacher = as_teacher(model, ["last", 2])
    wanted = teacher(tokens())
    torch.compiler.reset()
    counter = CompileCounterWithBackend("aot_eager")
    compile_blocks(model, counter)
    for _ in range(2):
        for found, state in zip(teacher(tokens()), wanted, strict=True):
            assert relative_error(found, state) < 1e-6
    assert counter.frame_count == 1


@pytest.mark.parametrize("name", CONFIGS)
def test_states_are_those_of_transformers_attention_to_the_bit(name, teachers, monkeypatch):
    found = load(teachers / name)(tokens())
    monkeypatch.setattr("let_titan.teacher.load.attention_of", lambda _: "sdpa")
    for one, other in zip(found, load(teachers / name)(tokens()), strict=True):
        assert torch.equal(one, other)
