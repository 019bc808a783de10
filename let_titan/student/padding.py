"""The padding of the vocabulary: rows of embedding and LM head that no id ever names."""

import torch

from let_titan.columns import local_columns


@torch.no_grad()
def hide_padding(logits: torch.Tensor, vocabulary: int) -> None:
    """Sets the logits of ids from ``vocabulary`` on to -inf, in place.

    Autograd does not see it (``.data``, since whole logits under tensor parallelism are a view that
    it would protect) and need not: a softmax gives columns of -inf a gradient of exactly zero, and
    no operation has saved the logits for its backward yet. So there is no second tensor of the
    logits' size, and the cross entropy, sharded or not, sees the tokenizer's ids alone.

    Args:
        logits: [B, S, V] or, under tensor parallelism, its shards along V.
        vocabulary: ids of the tokenizer.
    """
    local, first = local_columns(logits)
    local.data[..., max(0, vocabulary - first) :] = -torch.inf
