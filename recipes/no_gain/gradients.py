"""What the gradients of a batch are worth: their cosines to the gradient of the held-out NLL."""

from collections.abc import Mapping
from itertools import islice

import torch
import torch.nn.functional as F

from let_titan.alignment import cosine_alignment
from let_titan.student.model import LetTransformer

SHARES = {"NLL + 0.1 alignment": 0.1, "NLL + alignment": 1.0}
SALT_SHARE = 0.5
"""Of the KL in the lab's SALT (distill.weight)."""


def state_at(model: LetTransformer, tokens: torch.Tensor, k: int) -> torch.Tensor:
    """Returns the output of block ``k``, [B, S, d_M]; of 0 the embeddings."""
    assert model.tok_embeddings is not None
    hidden = model.tok_embeddings(tokens)
    for block in islice(model.layers.values(), k):
        hidden = block(hidden, model.freqs_cis, attention_masks=None, positions=None)
    assert isinstance(hidden, torch.Tensor)
    return hidden


def reached(model: LetTransformer, k: int) -> list[torch.nn.Parameter]:
    """Returns the weights that an alignment at block ``k`` reaches: the embedding, and 1 to k."""
    assert model.tok_embeddings is not None
    modules = [model.tok_embeddings, *islice(model.layers.values(), k)]
    return [parameter for module in modules for parameter in module.parameters()]


def flat(loss: torch.Tensor, weights: list[torch.nn.Parameter], keep: bool = False) -> torch.Tensor:
    """Returns the gradient of ``loss`` in ``weights`` as one vector."""
    found = torch.autograd.grad(loss, weights, retain_graph=keep)
    return torch.cat([gradient.flatten() for gradient in found])


def gradients_of_batch(
    model: LetTransformer,
    k: int,
    ids: torch.Tensor,
    states: Mapping[str, torch.Tensor],
    head: torch.Tensor,
) -> dict[str, torch.Tensor]:
    """Returns gradients of losses, means over tokens, in the weights that the alignment reaches.

    Args:
        model: the student.
        k: the aligned block.
        ids: [B, S + 1].
        states: the teacher's, [B, S, d_T]: "raw", as its head takes them, and others to align to.
        head: the teacher's, [V, d_T].
    """
    tokens, weights = ids[:, :-1], reached(model, k)
    logits = model(tokens).flatten(0, 1)
    theirs = (states["raw"].flatten(0, 1) @ head.T).log_softmax(-1)
    nll = F.cross_entropy(logits, ids[:, 1:].flatten())
    kl = F.kl_div(logits.log_softmax(-1), theirs, reduction="batchmean", log_target=True)
    found = {"NLL": flat(nll, weights, keep=True), "KL": flat(kl, weights)}
    mask = torch.ones_like(tokens, dtype=torch.bool)
    for name, target in states.items():
        loss = cosine_alignment(state_at(model, tokens, k), target, mask)[0] / mask.sum()
        found[f"alignment, {name}"] = flat(loss, weights)
    return found


def mixtures(found: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Returns the gradients and those of what the arms train on, which are their sums."""
    nll = found["NLL"]
    sums = {name: nll + share * found["alignment, raw"] for name, share in SHARES.items()}
    return {**found, **sums, "SALT": (1 - SALT_SHARE) * nll + SALT_SHARE * found["KL"]}


def held_out_gradient(model: LetTransformer, k: int, ids: torch.Tensor, batch: int) -> torch.Tensor:
    """Returns the gradient of the mean NLL of windows [B, S + 1] in the same weights."""
    parts = ids.split(batch)
    total: torch.Tensor | None = None
    for part in parts:
        logits = model(part[:, :-1]).flatten(0, 1)
        loss = F.cross_entropy(logits, part[:, 1:].flatten(), reduction="sum")
        gradient = flat(loss / ids[:, 1:].numel(), reached(model, k))
        total = gradient if total is None else total + gradient
    assert total is not None
    return total


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    """In float64: the vectors have a million entries."""
    return float(F.cosine_similarity(a.double(), b.double(), dim=0))
