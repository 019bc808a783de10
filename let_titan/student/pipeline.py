"""The student over a pipeline: torchtitan's stages and schedules, its gradients per token."""

from typing import Any

import torch
from torch import nn
from torchtitan.components.loss import LossFunction, build_cross_entropy_loss
from torchtitan.distributed import ParallelDims
from torchtitan.distributed.pipeline_parallel import pipeline_llm

from let_titan.config import LetJobConfig, distills
from let_titan.device import HAS_ACCELERATOR
from let_titan.student.stage import LetStage
from let_titan.upstream import pipeline_stage


class PipelineLoss:
    """A loss summed over tokens, whose gradient is divided by ``tokens``.

    torchtitan 0.2.2 divides the loss that a pipeline reports, and not the one it differentiates
    (its issue 2972): every gradient came out too large by the step's number of tokens. The value
    stays the sum, which the trainer divides for the log and the validator for itself.

    Attributes:
        tokens: the step's global number of valid tokens; set by the trainer before each step.
    """

    def __init__(self, loss_fn: LossFunction) -> None:
        self.loss_fn = loss_fn
        self.tokens: float | torch.Tensor = 1.0

    def __call__(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Returns the sum over a microbatch's valid tokens."""
        loss = self.loss_fn(logits, labels)
        if loss.requires_grad:
            loss.register_hook(lambda gradient: gradient / self.tokens)
        return loss


def build_loss(job_config: LetJobConfig, parallel_dims: ParallelDims) -> LossFunction:
    """Builds the loss for TrainSpec: torchtitan's cross entropy."""
    loss_fn: LossFunction = build_cross_entropy_loss(job_config)
    if distills(job_config):
        loss_fn = loss_unless_given(loss_fn)
    return PipelineLoss(loss_fn) if parallel_dims.pp_enabled else loss_fn


def loss_unless_given(loss_fn: LossFunction) -> LossFunction:
    """Returns ``loss_fn`` for a student that gives its loss itself while it is distilled."""
    return lambda output, labels: output if output.ndim == 0 else loss_fn(output, labels)


def pipeline_student(model: nn.Module, parallel_dims: ParallelDims, *args: Any) -> Any:
    """Splits the student for TrainSpec, by torchtitan's function, whose arguments these are."""
    if not HAS_ACCELERATOR:
        draw_alike(parallel_dims)
    with pipeline_stage(LetStage):
        return pipeline_llm(model, parallel_dims, *args)


def draw_alike(parallel_dims: ParallelDims) -> None:
    """Undoes torchtitan's seeds, which differ between stages.

    On a CPU each stage draws the whole model and keeps its part (``init_like_one_process``).
    """
    rank = parallel_dims.get_mesh("pp").get_local_rank()
    torch.manual_seed((torch.initial_seed() - rank) % 2**64)
