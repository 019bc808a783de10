"""What is lost at single tokens, and its gradients at their logits, in closed form and in fp32.

With z the student's logits, u the teacher's, y the label, p = softmax(u / T), q = softmax(z / T):

    NLL                      -log softmax(z)[y]    d/dz = softmax(z) - onehot(y)
    forward (soft labels)    KL(p || q)            d/dz = (q - p) / T
    reverse                  KL(q || p)            d/dz = q (log q - log p - KL) / T

both KL times T^2, so that gradients keep their size when T changes (Hinton et al., 2015).
"""

import torch
import torch.distributed as dist

from let_titan.distill.shards import WHOLE, Shard, at_least_one_column


def cross_entropy(
    z: torch.Tensor, labels: torch.Tensor, shard: Shard = WHOLE
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the NLL of each row, [n], and its gradient with respect to ``z``, [n, V].

    Args:
        z: logits, [n, V] in fp32.
        labels: [n]; a row whose label is no id loses nothing, and its gradient means nothing.
        shard: whose columns z and the gradient have.
    """
    log_q = shard.log_softmax(z)
    column, here = shard.own(labels, z)
    own = at_least_one_column(log_q).gather(-1, column).squeeze(-1)
    value = shard.reduced(torch.where(here, own, 0.0), dist.ReduceOp.SUM).neg()
    gradient = log_q.exp_()
    at_least_one_column(gradient).scatter_add_(-1, column, -here.to(gradient.dtype).unsqueeze(-1))
    return value, gradient


def divergence(
    z: torch.Tensor, u: torch.Tensor, temperature: float, reverse: bool, shard: Shard = WHOLE
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns T^2 KL of each row, [n], and its gradient with respect to ``z``, [n, V].

    Args:
        z, u: logits of student and teacher, [n, V] in fp32.
        temperature: T.
        reverse: KL(q || p) in place of KL(p || q).
        shard: whose columns z, u and the gradient have.
    """
    log_q, log_p = (shard.log_softmax(x / temperature) for x in (z, u))
    gap = log_q - log_p
    if reverse:
        q = log_q.exp_()
        value = shard.sum(q * gap)
        gradient = gap.sub_(value.unsqueeze(-1)).mul_(q)
    else:
        p = log_p.exp_()
        value = shard.sum(gap.mul_(p)).neg()
        gradient = log_q.exp_().sub_(p)
    return temperature**2 * value, gradient.mul_(temperature)
