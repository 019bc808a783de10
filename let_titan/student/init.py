"""Initial weights: the "llama" scheme, and shards that differ on a CPU."""

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.tensor import DTensor

from let_titan.device import HAS_ACCELERATOR

LLAMA_STD = 0.02
"""``initializer_range`` of Hugging Face's LlamaConfig."""


def init_llama(model: nn.Module) -> None:
    """Draws every matrix and embedding from N(0, 0.02); norms keep their ones."""
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=LLAMA_STD)


def is_drawn_whole(model: nn.Module) -> bool:
    """Whether each rank draws the whole model and keeps its part, as on a CPU it must.

    DTensor has no random state on a CPU, so that all shards would get the same numbers. Measured
    on torch 2.13: under FSDP2 on two CPU ranks ``wq`` had rank 32 of 64, since both ranks drew the
    same numbers for their halves. A pipeline's stages would draw other numbers than one process.
    """
    is_stage = model.tok_embeddings is None or model.output is None
    is_sharded = any(isinstance(p, DTensor) for p in model.parameters())
    return not HAS_ACCELERATOR and (is_stage or is_sharded)


def init_like_one_process(sharded: nn.Module, twin: nn.Module) -> None:
    """Gives ``sharded`` the weights that one process would draw.

    Every rank draws all of them, from the same seed, and keeps its shards: a CPU run is small.
    Only parameters travel; buffers are each rank's own. The random state stays as it was, so that
    all stages of a pipeline on one rank are parts of the same model.

    Args:
        sharded: the parallelised model, or a pipeline stage of it.
        twin: the same model, not parallelised, empty, on the CPU.
    """
    with torch.random.fork_rng(devices=[]):
        twin.init_weights()  # type: ignore[operator]
    set_model_state_dict(
        sharded,
        dict(twin.named_parameters()),
        options=StateDictOptions(full_state_dict=True, strict=False),
    )
