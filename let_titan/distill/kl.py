"""The gradient of an NLL mixed with a KL to the teacher's distribution, in chunks of tokens.

With z the student's logits, u the teacher's, p = softmax(u / T), q = softmax(z / T):

    forward (soft labels)    KL(p || q)    d/dz = (q - p) / T
    reverse                  KL(q || p)    d/dz = q (log q - log p - KL) / T

both times T^2, so that gradients keep their size when T changes (Hinton et al., 2015).
"""

import torch

from let_titan.distill.shards import Shard

CHUNK = 1024
"""Tokens whose distributions are held at once: 4 * CHUNK * V fp32 numbers, whatever the batch."""


WHOLE = Shard()
"""The whole vocabulary on one rank."""


def divergence(
    z: torch.Tensor, u: torch.Tensor, temperature: float, reverse: bool, shard: Shard = WHOLE
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns T^2 KL of each row, [n], and its gradient with respect to ``z``, [n, V], in fp32.

    Args:
        z, u: logits of student and teacher, [n, V].
        temperature: T.
        reverse: KL(q || p) in place of KL(p || q).
        shard: whose columns z, u and the gradient have.
    """
    ours, theirs = (shard.log_softmax(x.float() / temperature) for x in (z, u))
    q = ours.exp()
    if reverse:
        gap = ours - theirs
        value = shard.sum(q * gap)
        gradient = q * (gap - value.unsqueeze(-1))
    else:
        p = theirs.exp()
        value = shard.sum(p * (theirs - ours))
        gradient = q - p
    return temperature**2 * value, temperature * gradient


def mixed_gradient(
    grad_output: torch.Tensor,
    scale: torch.Tensor,
    logits: torch.Tensor,
    teacher: torch.Tensor,
    mask: torch.Tensor,
    *,
    head: torch.Tensor,
    nll_share: float,
    temperature: float,
    reverse: bool,
    chunk: int = CHUNK,
    shard: Shard = WHOLE,
) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
    """Returns nll_share * grad_output + scale * the KL's gradient, and the sums for the log.

    The teacher's logits and both distributions exist for ``chunk`` tokens at a time; of size
    [B, S, V] there is the result alone, beside the logits and the gradient of plain training.

    Args:
        grad_output: the NLL's gradient, [B, S, V].
        scale: weight / global number of valid tokens.
        logits: the student's, [B, S, V]; behind the head's rows they may be padded with -inf.
        teacher: the teacher's states after its final norm, [B, S, d_T].
        mask: [B, S] bool; where it is false, no KL counts.
        head: the teacher's LM head, a row for each id of the tokenizer that is among the columns.
        nll_share, temperature, reverse: the mixture.
        chunk: tokens.
        shard: whose columns the logits have.

    Returns:
        ([B, S, V], (KL summed over valid tokens, how many of them have equal first choices)).
    """
    result = torch.empty_like(grad_output)
    ids = head.shape[0]
    result[..., ids:] = 0
    whole = (result[..., :ids], grad_output[..., :ids], logits[..., :ids], teacher)
    flat = [x.flatten(0, 1).split(chunk) for x in whole]
    sums = torch.zeros(2, device=logits.device)
    for out, above, z, states, valid in zip(*flat, mask.flatten().split(chunk), strict=True):
        u = states.to(head.dtype) @ head.T
        value, gradient = divergence(z, u, temperature, reverse, shard)
        kept = valid.unsqueeze(-1)
        out.copy_(nll_share * above + scale * torch.where(kept, gradient, 0.0))
        agree = shard.argmax(z) == shard.argmax(u)
        sums += torch.stack((torch.where(valid, value, 0.0).sum(), (agree & valid).sum()))
    return result, (sums[0], sums[1])
