"""Context parallelism on a CPU: all of torchtitan's path but the attention itself.

torch's ring attention has no CPU kernel, so ``apply_cp_to_attention_module`` (torchtitan 0.2.2,
distributed/context_parallel.py) is what is replaced, and nothing else: each rank gathers all keys
and values, and masks by the positions that torchtitan's own ``cp_shard`` gave the ranks. Inputs,
labels, positions, RoPE, FSDP2 over the context-parallel ranks and the validator are the real ones.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from unittest import mock

import torch
import torch.distributed._functional_collectives as funcol
import torch.nn.functional as F
import torchtitan.models.llama3.infra.parallelize as titan_parallelize
from torchtitan.distributed.context_parallel import cp_shard

from let_titan.checks import find_mistakes
from tests.support import SEQ_LEN

REFUSED = "needs a GPU, since torch's ring attention has no kernel for a CPU"


def seen_from(mesh):
    """Returns [S / cp, S]: whether a key, in the order in which ranks hold them, is no later."""
    ((mine,), _) = cp_shard(mesh, (torch.arange(SEQ_LEN).unsqueeze(0),), None, "headtail")
    return mine[0].unsqueeze(1) >= funcol.all_gather_tensor(mine[0].contiguous(), 0, mesh)


def whole(x, mesh):
    """Gathers [B, H, S / cp, D] to [B, H, S, D]; torch 2.12 compiles that along axis 0 alone."""
    gathered = funcol.all_gather_tensor_autograd(x.contiguous(), 0, mesh)
    return torch.cat(gathered.chunk(mesh.size()), 2)


def attention(q, k, v, *, mesh, seen, scale=None, enable_gqa=False, is_causal=True):
    """Causal attention of this rank's queries [B, H, S / cp, D] to all ranks' keys."""
    assert is_causal
    k, v = (whole(x, mesh) for x in (k, v))
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=seen, scale=scale, enable_gqa=enable_gqa
    )


def apply(modules, mesh, attention_type):
    assert attention_type == "sdpa"
    seen = seen_from(mesh)
    for module in modules:
        module.forward = partial(attention, mesh=mesh, seen=seen)


@contextmanager
def stand_in() -> Iterator[None]:
    """While active, context parallelism runs on a CPU."""
    with mock.patch.object(titan_parallelize, "apply_cp_to_attention_module", apply):
        yield


def checked(config):
    """Returns a config of context parallelism whose only mistake is to be on a CPU."""
    mistakes = [str(mistake) for mistake in find_mistakes(config)]
    assert len(mistakes) == 1 and REFUSED in mistakes[0], mistakes
    return config
