"""torch's own ring attention on a CPU, around a flash kernel that is written out here.

What a GPU would run but for the kernel itself: DTensor's dispatch, the exchange of keys and values,
the balance of head and tail, the merging of partial results, and all of that backwards.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import torch
import torchtitan.models.llama3.infra.parallelize as titan_parallelize
from torchtitan.distributed.context_parallel import apply_cp_to_attention_module

from let_titan.preflight.memory import flash_attention


def scores_of(q, k, is_causal, scale):
    """Returns (keys' heads as often as queries', scaled scores), of [B, H, S, D]."""
    k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
    scores = (q @ k.transpose(-2, -1)) * (scale or 1 / math.sqrt(q.shape[-1]))
    if is_causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        scores = scores.masked_fill(later, -math.inf)
    return k, scores


def forward(q, k, v, dropout_p=0.0, is_causal=False, return_debug_mask=False, *, scale=None):
    """As aten's _scaled_dot_product_flash_attention: output, log of the sum, and what is unused."""
    _, scores = scores_of(q, k, is_causal, scale)
    v = v.repeat_interleave(q.shape[1] // v.shape[1], dim=1)
    out, lse = scores.softmax(-1) @ v, scores.logsumexp(-1)
    unused = torch.zeros((), dtype=torch.int64)
    return out, lse, None, None, q.shape[2], k.shape[2], unused, unused.clone(), None


def backward(
    grad,
    q,
    k,
    v,
    out,
    lse,
    cum_q,
    cum_k,
    max_q,
    max_k,
    dropout_p,
    is_causal,
    seed,
    offset,
    *,
    scale=None,
):
    """The gradients of ``forward``, by the ring's own ``out`` and ``lse`` of all keys."""
    groups = q.shape[1] // k.shape[1]
    keys, scores = scores_of(q, k, is_causal, scale)
    values = v.repeat_interleave(groups, dim=1)
    p = (scores - lse.unsqueeze(-1)).exp()
    of_scores = p * (grad @ values.transpose(-2, -1) - (grad * out).sum(-1, keepdim=True))
    of_scores = of_scores * (scale or 1 / math.sqrt(q.shape[-1]))
    of_keys, of_values = of_scores.transpose(-2, -1) @ q, p.transpose(-2, -1) @ grad
    return (
        of_scores @ keys,
        *(x.unflatten(1, (-1, groups)).sum(2) for x in (of_keys, of_values)),
    )


def apply(modules, mesh, attention_type):
    apply_cp_to_attention_module(modules, mesh, attention_type)
    for module in modules:
        module.forward = flash_attention  # SDPA would choose a CPU's kernel, which has no ring


@contextmanager
def ring_on_a_cpu() -> Iterator[None]:
    """While active, context parallelism runs on a CPU, ring and all."""
    with (
        torch.library._scoped_library("aten", "IMPL") as aten,
        mock.patch.object(titan_parallelize, "apply_cp_to_attention_module", apply),
    ):
        aten.impl("_scaled_dot_product_flash_attention", forward, "CPU")
        aten.impl("_scaled_dot_product_flash_attention_backward", backward, "CPU")
        yield
