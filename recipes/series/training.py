"""One run: a classifier trained alone, under an alignment, or under a teacher's soft labels."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from let_titan.alignment import cosine_alignment
from let_titan.schedule import lambda_at
from series.data import Split
from series.output import Output


@dataclass(frozen=True)
class Arm:
    """How the student is taught.

    Attributes:
        lambda_0: first weight of the alignment; 0: none.
        kd_weight: of the KL to the teacher's soft labels throughout; the task has the rest.
        temperature: of both distributions.
    """

    name: str
    lambda_0: float = 0.0
    kd_weight: float = 0.0
    temperature: float = 4.0

    @property
    def taught(self) -> bool:
        return self.lambda_0 > 0 or self.kd_weight > 0


@dataclass(frozen=True)
class Training:
    """What all arms share.

    Attributes:
        k: the student's aligned block, from 1.
        s_stop_fraction: of ``steps``, until when LET has its teacher.
        warm_up: steps in which the rate rises; afterwards it falls to zero by a cosine.
        evaluate_every: steps.
    """

    steps: int = 200
    batch: int = 16
    warm_up: int = 10
    weight_decay: float = 0.01
    clip: float = 1.0
    k: int = 1
    s_stop_fraction: float = 0.15
    evaluate_every: int = 20

    @property
    def s_stop(self) -> int:
        return round(self.s_stop_fraction * self.steps)


class Step(NamedTuple):
    """One step's losses, 0-d tensors; ``cosine`` is None where nothing was aligned."""

    loss: torch.Tensor
    cosine: torch.Tensor | None


def train(
    student: nn.Module,
    teacher: nn.Module | None,
    arm: Arm,
    fit: Split,
    held_out: Split,
    training: Training,
    rate: float,
    seed: int,
) -> dict[str, Any]:
    """Trains ``student`` in place on ``fit`` with AdamW.

    Batches are those of ``seed`` in every arm; nothing is chosen by what ``held_out`` shows.

    Returns:
        curve: [step, accuracy, cross-entropy] on ``held_out``, from step 0 on; cosine: the last
        aligned step's, or None; cpu_s: of the steps alone.
    """
    optimizer = torch.optim.AdamW(student.parameters(), rate, weight_decay=training.weight_decay)
    schedule = torch.optim.lr_scheduler.SequentialLR(
        optimizer,
        [
            torch.optim.lr_scheduler.LinearLR(
                optimizer, 1 / training.warm_up, 1.0, training.warm_up
            ),
            torch.optim.lr_scheduler.CosineAnnealingLR(
                optimizer, training.steps - training.warm_up
            ),
        ],
        [training.warm_up],
    )
    curve, cosine, cpu_s = [[0, *evaluate(student, held_out)]], None, 0.0
    for s, which in enumerate(islice(batches(len(fit), training.batch, seed), training.steps)):
        begin = time.process_time()
        student.train()
        step = step_losses(student, teacher, arm, fit.take(which), training, s)
        optimizer.zero_grad()
        step.loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), training.clip)
        optimizer.step()
        schedule.step()
        cosine = cosine if step.cosine is None else step.cosine.item()
        cpu_s += time.process_time() - begin
        if (s + 1) % training.evaluate_every == 0 or s + 1 == training.steps:
            curve.append([s + 1, *evaluate(student, held_out)])
    return {"curve": curve, "cosine": cosine, "cpu_s": round(cpu_s, 3)}


def batches(n: int, size: int, seed: int) -> Iterator[torch.Tensor]:
    """Yields indices for ever, epoch by epoch in a new order; an epoch's remainder is left out."""
    generator = torch.Generator().manual_seed(seed)
    size = min(size, n)
    while True:
        order = torch.randperm(n, generator=generator)
        yield from order[: n - n % size].split(size)


def step_losses(
    student: nn.Module,
    teacher: nn.Module | None,
    arm: Arm,
    batch: Split,
    training: Training,
    s: int,
) -> Step:
    """Returns L_total of step ``s``, from 0: the task's cross-entropy and what the arm adds.

    LET: L_task + lambda(s) L_proj (paper, section 3), block k against the teacher's last. KD:
    (1 - w) L_task + w T^2 KL(teacher || student) (Hinton et al., 2015).
    """
    found: Output = student(batch.series, batch.mask)
    task = F.cross_entropy(found.logits, batch.labels)
    weight = lambda_at(s, arm.lambda_0, training.s_stop)
    if teacher is None or (weight == 0 and arm.kd_weight == 0):
        return Step(task, None)
    with torch.no_grad():
        theirs: Output = teacher(batch.series, batch.mask)
    if arm.kd_weight:
        ours, teachers = (
            (x / arm.temperature).log_softmax(-1) for x in (found.logits, theirs.logits)
        )
        kl = F.kl_div(ours, teachers, reduction="batchmean", log_target=True)
        kl = arm.temperature**2 * kl
        return Step((1 - arm.kd_weight) * task + arm.kd_weight * kl, None)
    target, valid = student.tokens(theirs.states[-1], batch.mask)  # type: ignore[operator]
    total, cosine = cosine_alignment(found.states[training.k - 1], target, valid)
    return Step(task + weight * total / valid.sum(), cosine.detach() / valid.sum())


@torch.no_grad()
def evaluate(model: nn.Module, split: Split, batch: int = 128) -> tuple[float, float]:
    """Returns (accuracy, cross-entropy in nats), in the split's own order.

    TimesNet finds one set of periods a batch, so the batches are part of what is measured.
    """
    model.eval()
    parts = torch.arange(len(split)).split(batch)
    found = [model(split.series[which], split.mask[which]).logits for which in parts]
    logits = torch.cat(found)
    accuracy = (logits.argmax(-1) == split.labels).float().mean().item()
    return round(accuracy, 6), round(F.cross_entropy(logits, split.labels).item(), 5)
