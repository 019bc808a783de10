"""The teacher's states against an untouched fp32 Hugging Face model, whole and sharded."""

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM

from let_titan.teacher.blocks import block_list
from let_titan.teacher.placement import ranks_of_node, shards
from tests.support import relative_error
from tests.teachers import BF16_ERROR, CONFIGS, LAYERS, load, tokens, untouched
from tests.world import run_world


@pytest.mark.parametrize("name", CONFIGS)
def test_fp32_states_equal_the_untouched_model(name, teachers):
    teacher = load(teachers / name)
    for found, wanted in zip(teacher(tokens()), untouched(teachers / name), strict=True):
        assert relative_error(found, wanted) < 1e-5


@pytest.mark.parametrize("name", CONFIGS)
def test_only_the_needed_blocks_are_built_frozen(name, teachers):
    teacher = load(teachers / name, layers=[3, 1])
    assert len(block_list(teacher.model)) == 3 == teacher.description.n_blocks
    model = AutoModelForCausalLM.from_pretrained(teachers / name).eval()
    with torch.no_grad():
        states = model(tokens(), output_hidden_states=True).hidden_states
    for found, layer in zip(teacher(tokens()), (3, 1), strict=True):
        assert relative_error(found, states[layer]) < 1e-5
        assert not found.requires_grad
    assert not teacher.model.training
    for parameter in teacher.model.parameters():
        assert not parameter.requires_grad and not parameter.is_meta
    assert not any("lm_head" in key for key, _ in teacher.model.named_parameters())


def sharded_states(teachers):
    """On every rank: the sharded bf16 states, and the bytes of weights held here."""
    mesh = init_device_mesh("cpu", (torch.distributed.get_world_size(),))
    results = {}
    for name in CONFIGS:
        teacher = load(teachers / name, LAYERS, torch.bfloat16, mesh, "shard")
        parameters = list(teacher.model.parameters())
        assert all(isinstance(p, DTensor) and p.dtype == torch.bfloat16 for p in parameters)
        here = sum(p.to_local().nbytes for p in parameters)
        results[name] = (teacher(tokens()), here / teacher.description.bytes)
    return results


def test_sharded_over_two_ranks_in_bf16(teachers, tmp_path):
    for name, (states, share) in run_world(2, sharded_states, tmp_path, teachers).items():
        assert share == pytest.approx(0.5, abs=0.05)
        for found, wanted in zip(states, untouched(teachers / name), strict=True):
            assert relative_error(found, wanted) < BF16_ERROR, name


def test_auto_placement_goes_by_bytes():
    assert not shards("auto", 2**30 - 1) and shards("auto", 2**30)
    assert shards("shard", 1) and shards("node", 1) and not shards("replicate", 2**40)


def test_the_ranks_of_a_node_share_a_teacher_within_a_stage():
    assert [ranks_of_node(rank, 16, 8) for rank in (0, 9)] == [[*range(8)], [*range(8, 16)]]
    # the pipeline's ranks are outermost: here both stages are on one node, and there on two
    assert [ranks_of_node(rank, 8, 8, 2) for rank in (1, 6)] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert ranks_of_node(5, 16, 8, 2) == [*range(8)]
    assert ranks_of_node(3, 4, 1) == [3]


class Order(TorchDispatchMode):
    """Notes each all-gather as it is issued, and each block as it begins to compute."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.seen: list[str] = []
        for i, block in enumerate(block_list(model), start=1):
            first = next(m for m in block.modules() if not list(m.children()))
            first.register_forward_pre_hook(lambda *_, i=i: self.seen.append(f"block {i}"))

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if "allgather" in func.__name__:
            self.seen.append("gather")
        return func(*args, **(kwargs or {}))


def order_of_gathers(teachers):
    """Returns what a sharded teacher does, as it is placed and with FSDP2's own prefetching."""
    mesh, found = init_device_mesh("cpu", (2,)), []
    for prefetches in (True, False):
        teacher = load(teachers / "llama", ["last"], mesh=mesh, placement="shard")
        for module in teacher.model.modules():
            if isinstance(module, FSDPModule) and not prefetches:
                module.set_modules_to_forward_prefetch([])
        with Order(teacher.model) as order:
            teacher(tokens())
        found.append(order.seen)
    return found


def test_a_blocks_weights_are_asked_for_before_the_block_ahead_computes(teachers, tmp_path):
    placed, plain = run_world(2, order_of_gathers, tmp_path, teachers)
    blocks = [f"block {i}" for i in (1, 2, 3, 4)]
    assert plain == ["gather", *(event for block in blocks for event in ("gather", block))]
    one, two, three, four = blocks
    # the root's and block 1's, then each block's one block ahead of its turn
    ahead = ["gather", "gather", "gather", one, "gather", two, "gather", three, four]
    assert placed == ahead


@pytest.mark.parametrize("name", CONFIGS)
def test_flops_against_torchs_counter(name, teachers):
    teacher = load(teachers / name, ["last"])
    # The counter does not know the CPU's fused attention; "math" is two products, all of them.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        teacher(tokens())
    counted = counter.get_total_flops() / tokens().numel()
    assert teacher.description.flops_per_token == pytest.approx(counted, rel=0.01)
