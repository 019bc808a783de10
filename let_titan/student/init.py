"""Initial weights: the "llama" scheme, and shards that differ on a CPU."""

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


def shards_share_random_numbers(model: nn.Module) -> bool:
    """Whether sharded init would repeat itself: DTensor has no random state on a CPU.

    Measured on torch 2.13: under FSDP2 on two CPU ranks ``wq`` had rank 32 of 64, since both
    ranks drew the same numbers for their halves.
    """
    return not HAS_ACCELERATOR and any(isinstance(p, DTensor) for p in model.parameters())


def init_like_one_process(sharded: nn.Module, twin: nn.Module) -> None:
    """Gives ``sharded`` the weights that one process would draw.

    Every rank draws all of them, from the same seed, and keeps its shards: a CPU run is small.
    Only parameters travel; buffers are each rank's own.

    Args:
        sharded: the parallelised model, or a pipeline stage of it.
        twin: the same model, not parallelised, empty, on the CPU.
    """
    twin.init_weights()  # type: ignore[operator]
    set_model_state_dict(
        sharded,
        dict(twin.named_parameters()),
        options=StateDictOptions(full_state_dict=True, strict=False),
    )
