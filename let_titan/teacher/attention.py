"""Plain causal attention for the teacher, over whole rows or over pieces of a single one."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

CAUSAL = "let_titan_causal"
"""transformers' own SDPA under a name for which it makes no mask: ``is_causal`` says it all."""

LOCAL = {"sliding_attention", "chunked_attention"}
"""What transformers calls blocks that see only the tokens near by."""

PLAINLY_CAUSAL = ("llama", "opt", "gpt_neox", "gpt2")
"""Architectures with no sliding window and no bias in the mask, each tested to the bit."""


@dataclass(frozen=True)
class Pieces:
    """What of a single row is read by itself, each piece after the other.

    Not a tuple, in which FSDP2 would find the tensor and take it to the device; the host, which
    cuts by it, would have to wait for it there. And not integers, for each of which a compiled
    block would be compiled anew.

    Attributes:
        lengths: [n] int64, on the CPU; they add up to the row's.
    """

    lengths: torch.Tensor


def attention_of(config: Any) -> str | None:
    """Returns the attention to build a teacher with; None: transformers' own choice.

    That is "sdpa", and "eager" where an architecture has no other or no attention at all.

    Under "sdpa" transformers 5 looks at the positions in each forward, whether several sequences
    were packed into one, and reads the answer back from the device: the host waits for all that is
    queued. A teacher's rows are packed by ``Pieces`` alone.
    """
    if config.model_type not in PLAINLY_CAUSAL:
        return None
    # Imported here: it brings torchao, whose notices must find the log set up.
    from transformers import AttentionInterface

    AttentionInterface.register(CAUSAL, causal)
    return CAUSAL


def is_eager(model: Any) -> bool:
    """Whether a teacher was built without SDPA, by a name that transformers keeps private.

    Its mask is added to the scores, [B, H, S, S], or there are neither: one of true and false, as
    keeps documents apart, would be added as 1 and 0, or not be heeded.
    """
    return model.config._attn_implementation == "eager"


def has_windows(config: Any) -> bool:
    """Whether some blocks of a teacher see only the tokens near by, in a window or a chunk.

    transformers makes their masks, for which it looks for documents in the positions; a mask that
    is given takes the place of all of them, so that the windows would be gone.
    """
    sizes = (getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size"))
    return any(sizes) or bool(LOCAL & layer_types(config))


def mixes_without_attention(model: nn.Module) -> bool:
    """Whether tokens reach later ones by other ways than attention, which no mask closes.

    These are recurrences and convolutions over tokens, as in Mamba's and hybrid blocks. Not every
    architecture says so under ``layer_types``; all but a few recurrences have a convolution.
    """
    others = layer_types(model.config) - LOCAL - {"full_attention", "attention"}
    return bool(others) or any(isinstance(each, nn.Conv1d) for each in model.modules())


def layer_types(config: Any) -> set[str]:
    return set(getattr(config, "layer_types", None) or ())


def takes_pieces(config: Any) -> bool:
    """Whether a teacher can read a row in pieces, which a checkpoint's own code would not heed."""
    return config.model_type in PLAINLY_CAUSAL and not getattr(config, "auto_map", None)


def causal(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    pieces: Pieces | None = None,
    **rest: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' SDPA; with ``pieces`` the same of each, without a mask."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    if pieces is None:
        sdpa = ALL_ATTENTION_FUNCTIONS["sdpa"]
        return sdpa(module, query, key, value, attention_mask, **rest)
    return causal_pieces(query, key, value, pieces.lengths, rest.get("scaling")), None


@torch.library.custom_op("let_titan::causal_pieces", mutates_args=())
def causal_pieces(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    lengths: torch.Tensor,
    scale: float | None,
) -> torch.Tensor:
    """Causal attention within each piece of a row.

    One operation to the compiler, which so sees no length but the row's.

    Args:
        query: [1, H, N, D].
        key, value: [1, H_kv, N, D].
        lengths: from ``Pieces``.
        scale: of the products; None: 1 / sqrt(D).

    Returns:
        [1, N, H, D].
    """
    cut = (each.split(lengths.tolist(), dim=2) for each in (query, key, value))
    gqa = key.shape[1] != query.shape[1]
    read = (
        F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=gqa)
        for q, k, v in zip(*cut, strict=True)
    )
    return torch.cat([each.transpose(1, 2) for each in read], dim=1)


@causal_pieces.register_fake
def _(query: torch.Tensor, *_: Any) -> torch.Tensor:
    return query.new_empty(query.transpose(1, 2).shape)
