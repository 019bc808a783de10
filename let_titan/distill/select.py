"""SALT-DS: of several sequences the one that is challenging for the teacher, yet learnable.

Of "A Little Help Goes a Long Way" (Rawat et al., arXiv 2410.18779), whose score is, as we read it,
the median over a sequence's tokens of the small model's loss, where a token that is not among the
small model's ``top_k`` counts as none: easy sequences score low, and so do those that are mostly
noise to it. The paper scores a corpus beforehand; here each step draws ``pool`` times its
sequences, and of each ``pool`` of them the best is trained on.
"""

from collections.abc import Callable, Iterator
from itertools import islice

import torch
from torchtitan.components.loss import IGNORE_INDEX

from let_titan.batch import Batch
from let_titan.distill.chunks import CHUNK


def sequence_scores(
    states: torch.Tensor, labels: torch.Tensor, head: torch.Tensor, top_k: int, chunk: int = CHUNK
) -> torch.Tensor:
    """Returns each sequence's score, [B] in fp32; -inf without a valid token.

    Args:
        states: the teacher's after its final norm, [B, S, d_T].
        labels: [B, S], IGNORE_INDEX where there is none.
        head: the teacher's LM head, [V, d_T].
        top_k: how many of the teacher's first choices a learnable token is among.
        chunk: tokens whose logits are held at once.
    """
    parts = []
    flat = (states.flatten(0, 1).split(chunk), labels.flatten().split(chunk))
    for some, wanted in zip(*flat, strict=True):
        logits = (some.to(head.dtype) @ head.T).float()
        valid = wanted != IGNORE_INDEX
        own = logits.gather(-1, torch.where(valid, wanted, 0).unsqueeze(-1))
        learnable = (logits > own).sum(-1) < top_k
        loss = torch.where(learnable, logits.logsumexp(-1) - own.squeeze(-1), 0.0)
        parts.append(torch.where(valid, loss, float("nan")))
    return medians(torch.cat(parts).view(labels.shape))


def medians(losses: torch.Tensor) -> torch.Tensor:
    """Returns the lower median of each row of [B, S] without its NaN, [B]; -inf of NaN alone.

    As ``nanmedian``, which on a GPU has no deterministic kernel and so fails where
    debug.deterministic asks for one.
    """
    ordered = losses.sort(-1).values  # NaN last
    middle = ((~losses.isnan()).sum(-1, keepdim=True) - 1).clamp_min(0) // 2
    return ordered.gather(-1, middle).squeeze(-1).nan_to_num(nan=-torch.inf)


def times_read(pool: int) -> int:
    """Returns how many sequences the teacher reads for one that is trained on.

    To choose, all ``pool`` that compete; then the best once more.
    """
    return 1 if pool == 1 else 1 + pool


def best_of(batches: list[Batch], scores: list[torch.Tensor], pool: int) -> list[Batch]:
    """Keeps one of each ``pool`` sequences, the first of those with the highest score.

    A rank's sequence number i in a step competes with its numbers i + n, i + 2n, ... where n is
    what a step trains on: these are G sequences apart in the run's order (G of a step on all
    ranks), whatever the ranks and microbatches are, so that all layouts choose alike.

    Args:
        batches: a step's, ``pool`` times as many as it trains on.
        scores: [B] of each.
        pool: how many sequences compete.
    """
    size = len(batches[0][1])
    choice = torch.cat(scores).view(pool, -1).argmax(0)
    columns = torch.arange(len(choice))

    def kept(rows: list[torch.Tensor]) -> list[torch.Tensor]:
        whole = torch.cat(rows)
        return list(whole.view(pool, -1, *whole.shape[1:])[choice, columns].split(size))

    inputs = {name: kept([batch[name] for batch, _ in batches]) for name in batches[0][0]}
    labels = kept([label for _, label in batches])
    rows = range(len(labels))
    return [({name: x[i] for name, x in inputs.items()}, labels[i]) for i in rows]


def selected(
    batches: Iterator[Batch],
    pool: int,
    per_step: int,
    selecting: Callable[[], bool],
    score: Callable[[Batch], torch.Tensor],
) -> Iterator[Batch]:
    """Yields what is trained on; ends with ``batches``.

    Args:
        batches: from the loader.
        pool: how many sequences compete.
        per_step: batches that a step trains on.
        selecting: whether the current step selects; asked at its beginning.
        score: gives a batch's [B], on the CPU.
    """
    while True:
        count = per_step * (pool if selecting() else 1)
        drawn = list(islice(batches, count))
        if len(drawn) < count:
            return
        if count > per_step:
            drawn = best_of(drawn, [score(batch) for batch in drawn], pool)
        yield from drawn
