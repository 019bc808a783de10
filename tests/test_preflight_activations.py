"""Preflight: the activations that it tells are what a step allocates."""

import gc
from contextlib import nullcontext
from dataclasses import replace
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import CheckpointWrapper
from torchtitan.components.loss import cross_entropy_loss
from torchtitan.distributed import ParallelDims
from torchtitan.distributed.utils import get_train_context
from torchtitan.tools import utils as titan_utils

from let_titan.alignment import Alignment, cosine_alignment
from let_titan.let.build import build_distillation
from let_titan.plan import LetPlan, resolve_plan
from let_titan.preflight import examine
from let_titan.preflight.findings import vocabulary_of
from let_titan.preflight.memory import (
    batch_of,
    gpu_attention,
    local_bytes,
    measure_activations,
    teacher_head,
    tensors_in,
    use_gpu_kernels,
)
from let_titan.preflight.student import build_student
from let_titan.preflight.world import fake_world
from let_titan.student import LetTransformer
from let_titan.student.pipeline import loss_unless_given
from let_titan.upstream import fake_tensors
from tests.preflighted import A100, METHODS, keys_of, most_allocated, recorded, with_teacher

pytestmark = pytest.mark.usefixtures("no_world")


def without_storage(config) -> LetTransformer:
    with fake_world(config, 1) as dims:
        return build_student(config, vocabulary_of(config), dims).model


def test_what_was_measured_before_does_not_shift_which_blocks_are_checkpointed(lab):
    """torchtitan's count of blocks is the process's, and a run's process builds one student."""
    keys = {"mode": "selective", "selective_ac_option": "3"}
    config = lab.parsed(None, **{f"activation_checkpoint__{key}": x for key, x in keys.items()})
    for _ in range(2):
        blocks = without_storage(config).layers.values()
        found = [isinstance(block, CheckpointWrapper) for block in blocks]
        assert found == [False, False, True, False]


def fill(model: LetTransformer, config, plan: LetPlan) -> None:
    model.to_empty(device=titan_utils.device_type)
    model.distillation = build_distillation(config, 1)
    if model.distillation is None:
        model.alignment = Alignment([(pair.block, 1.0) for pair in plan.pairs], cosine_alignment)
    else:
        model.distillation.head = teacher_head(config, model.model_args, 48)


def allocated_by(step) -> int:
    """The most bytes that ``step`` needs beyond those that live when it begins."""
    if titan_utils.device_type == "cpu":
        with recorded() as record:
            step()
        return most_allocated(record)
    gc.collect()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    return torch.cuda.max_memory_allocated() - before


def allocated_peak(model: LetTransformer, batch, precision) -> int:
    """The most that a step allocates; gradients go as they come."""
    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None))

    def step():
        with precision:
            loss = loss_unless_given(cross_entropy_loss)(model(**batch), batch["tokens"])
        loss.backward()

    # The profiler misses the beginning of the first, in which a GPU's libraries take workspaces.
    return [allocated_by(step) for _ in range(2)][-1]


def told(config, kind, precision, flash) -> int:
    """What preflight says of a step's activations on a machine with such devices."""
    plan, model = resolve_plan(config), without_storage(config)
    if flash:
        use_gpu_kernels(model)
    with mock.patch.object(titan_utils, "device_type", kind), fake_tensors():
        fill(model, config, plan)
        return measure_activations(model, batch_of(config, plan, 48, ALONE), precision)


def taken(config, precision) -> int:
    """What the step allocates here."""
    plan, model = resolve_plan(config), without_storage(config)
    fill(model, config, plan)
    with torch.no_grad():
        model.init_weights()
    batch = batch_of(config, plan, 48, ALONE)
    return allocated_peak(model, batch, precision) + local_bytes(tensors_in(batch))


def checkpointing(mode):
    return {
        "activation_checkpoint__mode": mode,
        "activation_checkpoint__selective_ac_option": "op",
    }


ALONE = ParallelDims(dp_replicate=1, dp_shard=1, cp=1, tp=1, pp=1, ep=1, etp=1, world_size=1)
MODES = pytest.mark.parametrize("mode", ["none", "full", "selective"])


@pytest.mark.parametrize("method", METHODS)
@MODES
def test_activations_are_what_a_cpu_allocates(mode, method, lab):
    sizes = {"training__seq_len": 128, "training__local_batch_size": 8}
    let, keys = keys_of(method, lab)
    config = lab.config(let, **keys, **checkpointing(mode), **sizes)
    found = told(config, "cpu", nullcontext(), flash=False)
    assert found == pytest.approx(taken(config, nullcontext()), rel=0.1)


@pytest.mark.parametrize("loss_parallel", [True, False])
@pytest.mark.parametrize("mode", ["none", "full"])
def test_a_tensor_parallel_ranks_activations_are_what_a_cpu_allocates(mode, loss_parallel, lab):
    """Most is the LM head's: what no rank holds whole must not be counted whole."""
    layout = {
        "parallelism__tensor_parallel_degree": 4,
        "parallelism__disable_loss_parallel": not loss_parallel,
        "model__pad_vocab_to_multiple_of": 4096,
        "training__seq_len": 128,
        "training__local_batch_size": 8,
    }
    config = lab.parsed(None, **checkpointing(mode), **layout)
    step_context = get_train_context(loss_parallel)
    with fake_world(config, 4) as dims:
        one, other = (build_student(config, vocabulary_of(config), dims).model for _ in range(2))
        with fake_tensors(), step_context():
            one.to_empty(device=titan_utils.device_type)
            found = measure_activations(one, batch_of(config, LetPlan(), 0, dims), nullcontext())
        other.to_empty(device=titan_utils.device_type)
        batch = batch_of(config, LetPlan(), 0, dims)
        with step_context():
            wanted = allocated_peak(other, batch, nullcontext()) + local_bytes(tensors_in(batch))
    assert found == pytest.approx(wanted, rel=0.1)


@pytest.mark.gpu
@MODES
def test_activations_are_what_a_gpu_allocates(mode, lab):
    """350M in bf16 on [4, 2048] tokens, with logits of a real vocabulary's size.

    Preflight is to say it without a GPU, too.
    """
    sizes = {"training__seq_len": 2048, "training__local_batch_size": 4, "model__flavor": "350M"}
    sizes["model__pad_vocab_to_multiple_of"] = 49_152
    config = lab.parsed({}, **checkpointing(mode), **sizes)
    found = {
        kind: told(config, kind, torch.autocast(kind, torch.bfloat16), flash=True)
        for kind in ("cuda", "cpu")
    }
    wanted = taken(config, torch.autocast("cuda", torch.bfloat16))
    assert found == {kind: pytest.approx(wanted, rel=0.1) for kind in found}


def saved_bytes(module: nn.Module, states: torch.Tensor) -> int:
    """What backward will find again, the weight left out."""
    saved = {}

    def note(tensor):
        saved[tensor.data_ptr()] = tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        module(states).sum().backward()
    return sum(saved.values()) - module.weight.nbytes


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_norm_keeps_its_input_and_a_number_a_token_as_on_a_gpu(dtype):
    """There torch has one kernel for it; on a CPU it keeps as much again, in fp32."""
    norm = nn.RMSNorm(64, dtype=dtype)
    states = torch.randn(2, 8, 64, dtype=dtype, requires_grad=True)
    assert saved_bytes(norm, states) >= states.nbytes + 4 * states.numel()
    use_gpu_kernels(norm)
    assert saved_bytes(norm, states) == states.nbytes + 4 * 16
    assert states.grad.shape == states.shape and norm.weight.grad.shape == norm.weight.shape


@pytest.mark.filterwarnings("ignore:Mismatch dtype")
def test_a_norm_whose_weight_has_another_dtype_is_fused_nowhere():
    norm = nn.RMSNorm(64)
    states = torch.randn(2, 8, 64, dtype=torch.bfloat16)
    wanted = norm(states)
    use_gpu_kernels(norm)
    assert torch.equal(norm(states), wanted)


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_attention_in_fp32_is_priced_by_one_that_computes_it(kv_heads):
    q, k, v = (torch.randn(2, heads, 64, 16) for heads in (4, kv_heads, kv_heads))
    wanted = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    torch.testing.assert_close(gpu_attention(q, k, v, enable_gqa=True), wanted)


@pytest.mark.parametrize(("dtype", "kept"), [(torch.float32, True), (torch.bfloat16, False)])
def test_only_fp32_keeps_the_scores(dtype, kept):
    shapes = []
    with (
        fake_tensors(),
        torch.autograd.graph.saved_tensors_hooks(
            lambda x: shapes.append(x.shape) or x, lambda x: x
        ),
    ):
        shape = (2, 4, 64, 16)
        states = [torch.empty(shape, dtype=dtype, requires_grad=True) for _ in range(3)]
        assert gpu_attention(*states).shape == shape
    assert ((2, 4, 64, 64) in shapes) == kept


def by_length(lab, length, **keys):
    """What preflight says of a tensor-parallel rank: 4,096 tokens in rows of ``length``."""
    layout = {
        "parallelism__tensor_parallel_degree": 4,
        "training__seq_len": length,
        "training__local_batch_size": 4096 // length,
    }
    return examine(lab.parsed(None, **layout, **keys), 4, A100)


def test_tensor_parallelism_alone_computes_in_fp32_and_keeps_the_scores(lab):
    """torchtitan's mixed precision is FSDP2's."""
    bf16 = {"training__mixed_precision_param": "bfloat16"}
    found = {n: by_length(lab, n, **bf16) for n in (64, 512)}
    taken = {n: told.price["memory_bytes_per_gpu"]["activations"] for n, told in found.items()}
    scores = 4096 * 512 * 4  # of this rank's one head, in fp32, in each block
    assert taken[512] - taken[64] > 4 * scores
    for told in found.values():
        assert any("compute in training.dtype = 'float32'" in x for x in told.findings.warnings)
        assert told.price["cost"]["mfu_source"].endswith("of the fp32 peak, 19.5 TFLOP/s")
    other = {n: by_length(lab, n, training__dtype="bfloat16") for n in (64, 512)}
    taken = {n: told.price["memory_bytes_per_gpu"]["activations"] for n, told in other.items()}
    assert taken[512] == pytest.approx(taken[64], rel=0.02)
    assert other[64].findings.warnings == []
    ratio = other[64].price["cost"]["gpu_hours"] / found[64].price["cost"]["gpu_hours"]
    assert ratio == pytest.approx(19.5 / 312)
    asked = by_length(lab, 64).findings.warnings  # the lab's mixed precision is fp32
    assert not any("compute in training.dtype" in warning for warning in asked)


def test_flex_attention_keeps_no_scores_in_fp32(lab):
    taken = {}
    for flex in (False, True):
        keys = {"training__local_batch_size": 8, "training__seq_len": 512}
        told = examine(lab.parsed(None, **keys, data__document_attention=flex), 1, A100)
        taken[flex] = told.price["memory_bytes_per_gpu"]["activations"]
    scores = 4 * 8 * 4 * 512 * 512 * 4  # blocks, rows, heads
    assert taken[False] - taken[True] > scores


@pytest.mark.parametrize(("dtype", "times"), [("float32", 1), ("bfloat16", 19.5 / 312)])
def test_a_bf16_teacher_is_faster_than_its_fp32_student(dtype, times, lab):
    """On a GPU: its FLOPs are a share of another peak."""
    found = examine(lab.parsed({}, teacher__dtype=dtype), 1, A100).price["cost"]
    share = found["flops_per_token_in_let_phase"] / found["flops_per_token_after"] - 1
    assert found["overhead_in_let_phase"] == pytest.approx(share * times)


def test_with_fsdp2_too_it_computes_in_mixed_precision(lab):
    layout = {
        "parallelism__tensor_parallel_degree": 2,
        "parallelism__data_parallel_shard_degree": 2,
    }
    keys = {**layout, "training__mixed_precision_param": "bfloat16", "training__seq_len": 64}
    told = examine(lab.parsed(None, **keys), 4, A100)
    assert told.findings.warnings == [] and "fp32" not in told.price["cost"]["mfu_source"]


def test_a_ring_needs_a_kernel(lab):
    config = lab.parsed(None, parallelism__context_parallel_degree=2)
    (told,) = examine(config, 4, A100).findings.mistakes
    assert "training.mixed_precision_param = 'float32' on a GPU" in told


def test_checkpointing_costs_less_memory_than_none(lab):
    found = {}
    for mode in ("none", "selective", "full"):
        config = lab.config({}, activation_checkpoint__mode=mode)
        found[mode] = examine(config, 4, A100).price["memory_bytes_per_gpu"]["activations"]
    assert found["full"] < found["selective"] < found["none"]


def test_what_takes_most_of_salt_are_its_plain_steps(lab):
    """The distilled ones hold no logits; in RKD there are no others."""
    keys = {"training__seq_len": 128, "training__local_batch_size": 8}
    salt = {"distill__method": "salt", "distill__n_kd": 2}
    layouts = {"plain": None, "salt": salt, "rkd": {"distill__method": "rkd"}}
    found = {}
    for name, method in layouts.items():
        let, more = (None, {}) if method is None else with_teacher(lab, method)
        config = lab.config(let, **keys, **more)
        found[name] = examine(config, 4, A100).price["memory_bytes_per_gpu"]
    assert found["rkd"]["activations"] < found["plain"]["activations"]
    assert found["rkd"]["teacher"] > 0 and found["salt"] == found["plain"]


def test_a_teacher_that_does_not_fit_is_not_hidden_by_salts_plain_steps(lab):
    """They take more in all, and less of what is exact."""
    keys = {"training__seq_len": 128, "training__local_batch_size": 8}
    let, salt = with_teacher(lab, {"distill__method": "salt", "distill__n_kd": 2})
    config = lab.config(let, **keys, **salt)
    plain = examine(config, 4, A100).price["memory_bytes_per_gpu"]
    lasting = plain["total"] - plain["activations"]
    found = examine(config, 4, replace(A100, memory_bytes=lasting)).findings.mistakes
    assert len(found) == 1 and "teacher take" in found[0]
