"""torchtitan's parallelisation of Llama 3, corrected for a head that returns a loss, for DDP, for
compiled TP and for gloo."""

import os
from typing import Any

import torch
import torch.compiler.config
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torchtitan.distributed import ParallelDims
from torchtitan.models.llama3 import parallelize_llama

from let_titan.config import LetJobConfig, compiles
from let_titan.device import HAS_ACCELERATOR
from let_titan.upstream import columns_or_loss


def parallelize_student(
    model: nn.Module, parallel_dims: ParallelDims, job_config: LetJobConfig
) -> nn.Module:
    """Applies TP, activation checkpointing, compile and FSDP2 or DDP by torchtitan's function."""
    with columns_or_loss():
        model = parallelize_llama(model, parallel_dims, job_config)
    if parallel_dims.tp_enabled:
        separate_compile_caches(parallel_dims.get_mesh("tp").get_local_rank())
        if compiles(job_config, "model"):
            await_embeddings(model)
    if is_ddp(parallel_dims):
        sum_over_replicas(model, parallel_dims.get_mesh("dp_replicate").get_group())
    if not HAS_ACCELERATOR:
        sum_in_reduce_scatter(model)
    return model


def is_ddp(parallel_dims: ParallelDims) -> bool:
    return parallel_dims.dp_replicate_enabled and not parallel_dims.fsdp_enabled


def separate_compile_caches(tp_rank: int) -> None:
    """Gives each tensor-parallel rank a cache of compiled code of its own.

    The ranks trace one graph of DTensors, which is the key of torch's cache on disk, but their code
    differs: cross entropy over a shard of the vocabulary counts labels from the shard's first id.
    So a second start ran one rank's code on all of them, and its loss and gradients were silently
    wrong. That is pytorch issue 188390, open in torch 2.13; its pull request 188401 tells ranks
    apart by their devices, of which a CPU has one.
    """
    own = os.environ.get("TORCH_COMPILE_CACHE_KEY_TAG", "")
    torch.compiler.config.cache_key_tag = f"{own}tp{tp_rank}"


def await_embeddings(model: nn.Module) -> None:
    """Makes the first compiled block wait for the embeddings.

    Under tensor parallelism they are still on their way, in a wrapper that is their node in the
    graph of autograd. torch 2.13 unwraps the inputs of a compiled function and loses that node
    (pytorch pull request 179506), so that backward ends in an AttributeError before the embedding.
    Any op on the wrapper waits and gives an ordinary tensor.
    """
    embedding: Any = model.tok_embeddings
    if embedding is not None:
        embedding.register_forward_hook(lambda module, args, output: output.clone())


def sum_over_replicas(model: nn.Module, group: dist.ProcessGroup) -> None:
    """Lets DDP add gradients up instead of averaging them.

    torchtitan 0.2.2 divides the loss by the global number of tokens in every layout, and DDP would
    divide by the number of replicas again. Unlike a mean, a sum may be taken only once a step: the
    trainer calls ``set_requires_gradient_sync`` at each microbatch.
    """
    model.register_comm_hook(group, all_reduce_sum)  # type: ignore[operator]


def all_reduce_sum(
    group: dist.ProcessGroup, bucket: dist.GradBucket
) -> torch.futures.Future[torch.Tensor]:
    """DDP's communication hook: the sum of a bucket of gradients over ``group``."""
    work = dist.all_reduce(bucket.buffer(), group=group, async_op=True)
    return work.get_future().then(lambda future: future.value()[0])


def sum_in_reduce_scatter(model: nn.Module) -> None:
    """Lets FSDP2 reduce by a plain sum.

    torchtitan sets the gradient divide factor to 1.0, for which FSDP2 would use PREMUL_SUM; gloo
    has none, and with a factor of one the plain sum is the same number.
    """
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_force_sum_reduction_for_comms(True)
