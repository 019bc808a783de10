"""SALT-DS in a run: which of the loader's sequences are trained on while there is a teacher."""

from collections.abc import Callable, Iterable
from functools import partial

import torch

from let_titan.alignment import all_rows, share_of_batch
from let_titan.batch import Batch
from let_titan.distill import selected, sequence_scores
from let_titan.let.phase import LetPhase


def selected_batches(
    phase: LetPhase, batches: Iterable[Batch], per_step: int, step: Callable[[], int]
) -> Iterable[Batch]:
    """Returns the loader's batches, or what SALT-DS keeps of them while there is a teacher.

    Args:
        phase: the run's.
        batches: a run's.
        per_step: how many a step trains on.
        step: gives the step (from 1) that the next batch is for.
    """
    distill = phase.config.distill
    if distill.method != "salt" or distill.select_of == 1:
        return batches
    return selected(
        iter(batches),
        distill.select_of,
        per_step,
        selecting=lambda: phase.plan.teacher_in(step()),
        score=partial(scores_of, phase),
    )


def scores_of(phase: LetPhase, batch: Batch) -> torch.Tensor:
    """Returns the teacher's score of each of a batch's sequences, [B], on the CPU."""
    teacher, head = phase.slot.teacher, phase.slot.head
    assert teacher is not None and head is not None
    rows = len(batch[1])
    mine = share_of_batch(rows, phase.dims)
    inputs = {name: x[mine].to(phase.device) for name, x in batch[0].items()}
    (states,) = teacher(**inputs)
    labels, top_k = batch[1][mine].to(phase.device), phase.config.distill.select_top_k
    scores = sequence_scores(states, labels, head, top_k)
    return all_rows(scores, rows, phase.dims).cpu()
