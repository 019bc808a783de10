"""A teacher's blocks, and its layers by their numbers."""

from typing import Literal

from torch import nn

from let_titan.ranges import Layer

ResolvedLayer = int | Literal["last"]


def resolve_layer(layer: Layer, n_blocks: int) -> ResolvedLayer:
    """Turns "middle" into block round(n_blocks / 2)."""
    return max(1, round(n_blocks / 2)) if layer == "middle" else layer


def block_list(model: nn.Module) -> nn.ModuleList:
    """Returns the list of decoder blocks, whatever its architecture calls it.

    Raises:
        ValueError: the model has no list of ``num_hidden_layers`` modules.
    """
    n_blocks = model.config.num_hidden_layers  # type: ignore[union-attr]
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == n_blocks:
            return module
    raise ValueError(f"{type(model).__name__} has no list of {n_blocks} blocks.")
