"""torchtitan's parallelisation of Llama 3, as it is, with what gloo needs."""

from torch import nn
from torch.distributed.fsdp import FSDPModule
from torchtitan.distributed import ParallelDims
from torchtitan.models.llama3 import parallelize_llama

from let_titan.config import LetJobConfig
from let_titan.device import HAS_ACCELERATOR


def parallelize_student(
    model: nn.Module, parallel_dims: ParallelDims, job_config: LetJobConfig
) -> nn.Module:
    """Applies TP, activation checkpointing, compile and FSDP2 by torchtitan's own function."""
    model = parallelize_llama(model, parallel_dims, job_config)
    if not HAS_ACCELERATOR:
        sum_in_reduce_scatter(model)
    return model


def sum_in_reduce_scatter(model: nn.Module) -> None:
    """Lets FSDP2 reduce by a plain sum.

    torchtitan sets the gradient divide factor to 1.0, for which FSDP2 would use PREMUL_SUM; gloo
    has none, and with a factor of one the plain sum is the same number.
    """
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_force_sum_reduction_for_comms(True)
