"""The validation set: the same sequences whatever the ranks, so that its loss is one number.

The set is what one process reads in ``validation.steps`` batches of
``validation.local_batch_size`` sequences. Every rank reads and tokenises all of it, once a run, and
keeps its share.
"""

import itertools
from collections.abc import Iterable, Iterator

import torch
from torchtitan.components.loss import IGNORE_INDEX

from let_titan.batch import Batch


def share(batches: Iterable[Batch], rank: int, ranks: int, size: int) -> list[Batch]:
    """Deals a set's sequences to ``ranks`` and returns the share of one of them.

    Args:
        batches: the whole set.
        rank, ranks: which data-parallel rank of how many.
        size: sequences in each batch that is returned. All ranks return the same number of batches,
            since they compute each together; sequences without a valid label fill the last ones.
    """
    rows = list(itertools.chain.from_iterable(map(rows_of, batches)))
    mine = rows[rank::ranks]
    count = -(-len(rows) // ranks)  # of the rank that has most
    inputs, labels = rows[0]
    blank = (inputs, torch.full_like(labels, IGNORE_INDEX))
    mine += [blank] * (-(-count // size) * size - len(mine))
    return [stacked(mine[i : i + size]) for i in range(0, len(mine), size)]


def rows_of(batch: Batch) -> Iterator[Batch]:
    """Yields a batch's sequences."""
    inputs, labels = batch
    for i, row in enumerate(labels):
        yield {key: value[i] for key, value in inputs.items()}, row


def stacked(rows: list[Batch]) -> Batch:
    inputs = {key: torch.stack([row[key] for row, _ in rows]) for key in rows[0][0]}
    return inputs, torch.stack([labels for _, labels in rows])
