"""Attention within documents: one rule, for the student's flex attention and the teacher's SDPA."""

from typing import Any

import torch
from torch.nn.attention.flex_attention import BlockMask, and_masks, create_mask
from torchtitan.models.attention import (
    create_attention_mask,
    get_causal_mask_mod,
    get_document_mask_mod,
)


def mask_rule(positions: torch.Tensor) -> Any:
    """Returns torchtitan's mask_mod for causal attention within documents.

    Args:
        positions: [B, S] int64, of each token in its document, 0 where one begins.
    """
    # torchtitan's documents end where a certain id stands: here it is 1.
    ends = torch.zeros_like(positions)
    ends[:, :-1] = positions[:, 1:] == 0
    return and_masks(get_causal_mask_mod(), get_document_mask_mod(ends, 1))


def block_mask(positions: torch.Tensor) -> BlockMask:
    """Returns the rule for flex attention: blocks that no token sees are never computed."""
    batch, length = positions.shape
    rule, device = mask_rule(positions), positions.device
    return create_attention_mask(rule, batch, None, length, length, device=device)


def dense_mask(positions: torch.Tensor) -> torch.Tensor:
    """Returns the rule written out, [B, 1, S, S] bool, true where a token is seen."""
    batch, length = positions.shape
    return create_mask(mask_rule(positions), batch, 1, length, length, device=positions.device.type)
