"""What summary.json and preflight say of a teacher: its shape and its cost."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import nn

from let_titan.teacher.blocks import ResolvedLayer, block_list


@dataclass(frozen=True)
class TeacherDescription:
    """A teacher's part that is in use: the blocks that the layers need, and what belongs to them.

    Attributes:
        name: of its folder, or a hub id.
        architecture: transformers' class.
        layers: "last" or a block's number, one for each state.
        n_blocks: in use.
        width: d_T.
        vocab_size: of its embedding.
        parameters: in use, the embedding among them.
        block_parameters: the blocks' alone.
        bytes: of all ranks together, an LM head's among them.
        dtype: of the weights.
        flops_per_token: of a forward pass, as ``flops_per_token`` counts; 0 with cached states.
        placement: "replicate", "shard" or "node", or "cache"; None before it is placed.
        commit: the hub's; None for a folder that is not the hub's own snapshot.
        float8_linears: the matrices that are multiplied in float8; None where no model is loaded.
        compiled: whether its blocks are; None where no model is loaded.
    """

    name: str
    architecture: str
    layers: tuple[ResolvedLayer, ...]
    n_blocks: int
    width: int
    vocab_size: int
    parameters: int
    block_parameters: int
    bytes: int
    dtype: str
    flops_per_token: int
    placement: str | None = None
    commit: str | None = None
    float8_linears: int | None = None
    compiled: bool | None = None

    def with_head(self, vocabulary: int, dtype: torch.dtype, reads: int) -> Self:
        """Returns the same teacher with an LM head.

        Args:
            vocabulary: rows of the head in use.
            dtype: of the head.
            reads: how often the teacher reads a token that is trained on.
        """
        size = vocabulary * self.width
        flops = reads * (self.flops_per_token + 2 * size)
        return replace(self, flops_per_token=flops, bytes=self.bytes + size * dtype.itemsize)

    def with_maps(self, flops: int) -> Self:
        """Returns the same teacher with what learned width maps add to each token, ``flops``."""
        return replace(self, flops_per_token=self.flops_per_token + flops)


def describe(
    model: nn.Module,
    name: str,
    layers: Sequence[ResolvedLayer],
    dtype: torch.dtype,
    seq_len: int,
) -> TeacherDescription:
    """Describes a base model without an LM head, with or without its weights.

    Args:
        model: from ``build_part``, before it is placed.
        name: what it is called.
        layers: from ``build_part``.
        dtype: of the weights.
        seq_len: tokens per sequence, for its cost.
    """
    config: Any = model.config
    return TeacherDescription(
        name=name,
        architecture=type(model).__name__,
        layers=tuple(layers),
        n_blocks=config.num_hidden_layers,
        width=config.hidden_size,
        vocab_size=config.vocab_size,
        parameters=sum(p.numel() for p in model.parameters()),
        block_parameters=sum(p.numel() for p in block_list(model).parameters()),
        bytes=sum(p.numel() * p.element_size() for p in model.parameters()),
        dtype=str(dtype).removeprefix("torch."),
        flops_per_token=flops_per_token(model, seq_len),
    )


def flops_per_token(model: nn.Module, seq_len: int) -> int:
    """Returns the forward FLOPs of one token through a base model, without an LM head.

    2 per parameter of the blocks' matrices, plus attention's two products, 4 * width * seq_len a
    block; no saving for causality, as torchtitan counts the student. Where there is no attention
    (Mamba) nothing takes its place: the scan, of few FLOPs, is not counted.
    """
    config: Any = model.config
    blocks = block_list(model)
    parameters = sum(p.numel() for p in blocks.parameters() if p.ndim > 1)
    heads = getattr(config, "num_attention_heads", 0)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // max(1, heads)
    return 2 * parameters + 4 * len(blocks) * heads * head_dim * seq_len
