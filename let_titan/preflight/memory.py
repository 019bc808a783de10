"""A GPU's memory by part: one step with tensors that have a size and no storage."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, TypeVar

import torch
from torch import nn
from torchtitan.components.loss import cross_entropy_loss
from torchtitan.components.optimizer import build_optimizers
from torchtitan.config import TORCH_DTYPE_MAP
from torchtitan.distributed import ParallelDims
from torchtitan.distributed.utils import get_train_context, maybe_enable_amp
from torchtitan.models.attention import ScaledDotProductAttentionWrapper
from torchtitan.tools import utils as titan_utils

from let_titan.columns import local
from let_titan.config import LetJobConfig, distills
from let_titan.let.build import build_alignment, build_distillation, build_fit
from let_titan.plan import LetPlan
from let_titan.preflight.student import eager
from let_titan.student import LetModelArgs, LetTransformer
from let_titan.student.pipeline import loss_unless_given
from let_titan.upstream import fake_tensors, memory_tracker

T = TypeVar("T")

RESERVED_OVER_PREDICTED = (1.0, 1.24)
"""The least and the most of torchtitan's published peaks of reserved memory over what is predicted
for those runs (recipes/results/preflight_published, 18 runs on 8 to 512 H100)."""

LASTING = {"SHARDED_PARAM", "SHARDED_GRAD", "PARAM", "GRAD", "BUFFER", "OPT"}
"""The tracker's kinds that stay between steps and are counted by their tensors instead."""


@dataclass(frozen=True)
class StepMemory:
    """Bytes on one GPU: of those with the same blocks, the one with the largest shards.

    Attributes:
        weights, gradients, adam, buffers: of the tensors that last.
        activations: the most that forward and backward need beyond those: what is saved for
            backward, gathered weights, logits, gradients on their way.
        buckets: DDP's, into which it copies the gradients to add them up.
        teacher: its weights.
    """

    weights: int
    gradients: int
    adam: int
    buffers: int
    activations: int
    buckets: int = 0
    teacher: int = 0

    @property
    def total(self) -> int:
        return sum(asdict(self).values())

    @property
    def lasting(self) -> int:
        """All but the activations, which are an estimate."""
        return self.total - self.activations


def offloaded(memory: StepMemory) -> StepMemory:
    """Returns what of it stays on the GPU under training.enable_cpu_offload.

    FSDP holds this rank's shards of weights, gradients and Adam's moments in the host's memory; the
    weights that it gathers are counted with the activations.
    """
    return replace(memory, weights=0, gradients=0, adam=0)


def flash_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
    is_causal: bool = True,
) -> torch.Tensor:
    """The attention kernel of a GPU, by its shapes.

    On a CPU, SDPA would choose a kernel of the CPU's, which neither selective checkpointing nor
    context parallelism knows.
    """
    flash = torch.ops.aten._scaled_dot_product_flash_attention
    return flash(q, k, v, 0.0, is_causal, scale=scale)[0]


def gpu_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
    is_causal: bool = True,
) -> torch.Tensor:
    """The attention that a GPU would choose of those that torchtitan 0.2.2 allows.

    For fp32 neither cuDNN nor flash has a kernel: there the scores, [B, H, S, S], are kept whole.
    """
    if q.dtype in (torch.bfloat16, torch.float16):
        return flash_attention(q, k, v, scale=scale, enable_gqa=enable_gqa, is_causal=is_causal)
    math = torch.ops.aten._scaled_dot_product_attention_math
    options = {"scale": scale, "enable_gqa": enable_gqa}
    return math(q, k, v, None, 0.0, is_causal, **options)[0]


class _FusedNorm(torch.autograd.Function):
    """A GPU's RMS norm by its shapes: nothing as large as its input is kept but the input itself.

    On a CPU torch takes it apart into operations of which several keep an fp32 tensor of that size.
    """

    @staticmethod
    def forward(ctx: Any, states: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        scale = torch.empty_like(states[..., :1], dtype=torch.float32)
        ctx.save_for_backward(states, weight, scale)
        return torch.empty_like(states)

    @staticmethod
    def backward(ctx: Any, grad_output: torch.Tensor) -> Any:
        states, weight, _ = ctx.saved_tensors
        return torch.empty_like(states), torch.empty_like(weight)


def fused_norm(norm: nn.RMSNorm, states: torch.Tensor) -> torch.Tensor:
    """``norm`` as on a GPU, where torch fuses it if states and weight have one dtype."""
    if norm.weight.dtype != states.dtype:
        return nn.RMSNorm.forward(norm, states)
    return _FusedNorm.apply(states, norm.weight)  # type: ignore[no-untyped-call]


def use_gpu_kernels(model: nn.Module, flex: bool = False) -> None:
    """Leaves context parallelism's hooks in place: they hand the kernel's call to torch's ring.

    Args:
        model: its modules' forwards are replaced.
        flex: whether attention is flex attention, which keeps what flash does in any dtype.
    """
    for module in model.modules():
        if isinstance(module, ScaledDotProductAttentionWrapper):
            module.forward = flash_attention if flex else gpu_attention  # type: ignore[method-assign]
        elif isinstance(module, nn.RMSNorm):
            module.forward = partial(fused_norm, module)  # type: ignore[method-assign]


def measure_step(
    model: LetTransformer,
    config: LetJobConfig,
    dims: ParallelDims,
    plan: LetPlan,
    teacher_width: int = 0,
) -> StepMemory:
    """Takes ``model`` through forward, backward and an optimizer step, all without storage.

    Args:
        model: on meta, in its layout; it is used up.
        config: batch, sequence, optimizer and precision.
        dims: the layout.
        plan: with pairs, the alignment and the teacher's states are there, too.
        teacher_width: of those states.
    """
    dtype, device = config.training.mixed_precision_param, titan_utils.device_type

    def forward_backward() -> int:
        batch = batch_of(config, plan, teacher_width, dims)
        return measure_activations(model, batch, maybe_enable_amp(dims, dtype, device))

    width = teacher_width
    activations, lasting = without_storage(model, config, dims, plan, width, forward_backward)
    return StepMemory(**lasting, activations=activations)


def without_storage(
    model: LetTransformer,
    config: LetJobConfig,
    dims: ParallelDims,
    plan: LetPlan,
    teacher_width: int,
    forward_backward: Callable[[], T],
) -> tuple[T, dict[str, int]]:
    """Takes a step of ``model``, which is on meta; it is used up.

    Returns:
        what ``forward_backward`` returned, and the bytes of the tensors that last, by part.
    """
    use_gpu_kernels(model, config.data.document_attention)
    with fake_tensors():
        model.to_empty(device=titan_utils.device_type)
        optimizers = build_optimizers([model], config.optimizer, dims)
        attach_teacher(model, config, dims, plan, teacher_width)
        loss_parallel = dims.tp_enabled and not config.parallelism.disable_loss_parallel
        with get_train_context(loss_parallel)():
            result = forward_backward()
        optimizers.step()
        parameters = list(model.parameters())
        states = [v for o in optimizers.optimizers for s in o.state.values() for v in s.values()]
        return result, {
            "weights": local_bytes(parameters),
            "gradients": local_bytes(p.grad for p in parameters if p.grad is not None),
            "adam": local_bytes(states),
            "buffers": local_bytes(model.buffers()),
        }


def attach_teacher(
    model: LetTransformer,
    config: LetJobConfig,
    dims: ParallelDims,
    plan: LetPlan,
    teacher_width: int,
) -> None:
    """Gives ``model`` its alignment or distillation; call it where tensors are fake."""
    model.distillation = build_distillation(config, dims.tp)
    if model.distillation is not None:
        model.distillation.head = teacher_head(config, model.model_args, teacher_width)
    model.alignment = build_alignment(plan, eager(config))
    fit = build_fit(config.let, model.model_args.dim)
    if model.alignment is not None and fit is not None:
        device = torch.device(titan_utils.device_type)
        model.alignment.fitted = [fit(teacher_width, device) for _ in plan.pairs]


def teacher_head(config: LetJobConfig, args: LetModelArgs, width: int) -> torch.Tensor:
    """Returns an LM head of the teacher's, [V, width]; call it where tensors are fake."""
    dtype, device = TORCH_DTYPE_MAP[config.teacher.dtype], titan_utils.device_type
    return torch.zeros(args.vocabulary or args.vocab_size, width, dtype=dtype, device=device)


def batch_of(
    config: LetJobConfig, plan: LetPlan, teacher_width: int, dims: ParallelDims
) -> dict[str, Any]:
    """Returns one microbatch's arguments for the student; call it where tensors are fake.

    Context parallelism cuts the sequence. Block outputs, and with them the teacher's rows, are cut
    by tensor parallelism, too; not the LM head's, for distillation.
    """
    shape = (config.training.local_batch_size, config.training.seq_len // dims.cp)
    device = titan_utils.device_type
    batch: dict[str, Any] = {"tokens": torch.zeros(shape, dtype=torch.int64, device=device)}
    if dims.cp_enabled:
        batch["positions"] = torch.zeros_like(batch["tokens"])
    dtype = TORCH_DTYPE_MAP[config.teacher.dtype]
    if distills(config):
        whole = torch.zeros((*shape, teacher_width), dtype=dtype, device=device)
        batch |= {"teacher_hidden": [whole], "labels": torch.zeros_like(batch["tokens"])}
    elif plan.pairs:
        rows = (shape[0], shape[1] // dims.tp)
        states = (*rows, teacher_width)
        batch |= {
            "teacher_hidden": [torch.zeros(states, dtype=dtype, device=device) for _ in plan.pairs],
            "align_mask": torch.ones(rows, dtype=torch.bool, device=device),
            "align_coefficient": plan.lambda_0,
        }
    return batch


def measure_activations(
    model: nn.Module, batch: dict[str, Any], precision: AbstractContextManager[Any]
) -> int:
    """Runs forward and backward; returns the most live bytes beyond what lasts."""
    with memory_tracker(model, tensors_in(batch)) as tracker:
        with precision:
            loss = loss_unless_given(cross_entropy_loss)(model(**batch), batch["tokens"])
        loss.backward()
    return beyond_lasting(tracker.get_tracker_snapshot("peak"))


def beyond_lasting(snapshot: dict[Any, dict[Any, int]]) -> int:
    """Returns the live bytes of one of the tracker's snapshots that do not stay between steps."""
    return sum(
        n_bytes
        for kinds in snapshot.values()
        for kind, n_bytes in kinds.items()
        if kind != "Total" and getattr(kind, "name", kind) not in LASTING
    )


def tensors_in(batch: dict[str, Any]) -> list[torch.Tensor]:
    values = (value if isinstance(value, list) else [value] for value in batch.values())
    return [value for some in values for value in some if isinstance(value, torch.Tensor)]


def local_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Returns the bytes that this rank holds of ``tensors``."""
    return sum(t.numel() * t.element_size() for t in map(local, tensors))
