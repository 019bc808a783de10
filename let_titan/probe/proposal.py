"""Proposes k, lambda_0 and s_stop from what the probe's runs showed: rules, with their evidence."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, median, stdev
from typing import Any

from let_titan.let.auto_stop import AutoStop
from let_titan.probe.trials import BASELINE, Trial


@dataclass(frozen=True)
class Evidence:
    """A run's looks in numbers.

    Attributes:
        block: k.
        grad_cosine: of the alignment's gradient and the NLL's at block k, mean over looks.
        grad_cosine_error: standard error of that mean, looks taken as independent.
        grad_ratio: norm of the alignment's gradient over the NLL's, median over looks.
        cosine_first, cosine_last: of block k to the teacher, at the first look and the last.
        loss: NLL in nats per token at the end of the run.
        loss_gain: the baseline's less this one's; one seed each.
        stop: the step at which auto stop's rule would have ended the alignment, or None.
        stop_reason: why.
    """

    block: int
    grad_cosine: float
    grad_cosine_error: float
    grad_ratio: float
    cosine_first: float
    cosine_last: float
    loss: float
    loss_gain: float
    stop: int | None
    stop_reason: str | None


@dataclass(frozen=True)
class Proposal:
    """What the run should set, and why.

    Attributes:
        s_stop: None where no run came to it: longer than the probe's steps.
        because: a sentence a key.
    """

    k: int
    lambda_0: float
    s_stop: int | None
    because: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def evidence_of(trial: Trial, baseline: Trial, threshold: float, gain: float) -> Evidence:
    """Reduces a run to numbers.

    Args:
        trial: with looks.
        baseline: the run without a teacher.
        threshold, gain: auto stop's (let.auto_stop_cosine, let.auto_stop_gain).

    Raises:
        ValueError: fewer than two looks have an angle (a gradient was zero, or --steps is short).
    """
    found = [look for _, look in trial.looks if math.isfinite(number(look["grad_cosine"][0]))]
    if len(found) < 2:
        raise ValueError(
            f"Block {trial.block} has {len(found) or 'no'} look with two gradients, and an error "
            "takes two: raise --steps, or let.lambda_0 above 0."
        )
    angles = [look["grad_cosine"][0] for look in found]
    states = [look["block_cosine"][0][trial.block - 1] for look in found]
    stop, reason = replay(trial, threshold, gain)
    return Evidence(
        block=trial.block,
        grad_cosine=fmean(angles),
        grad_cosine_error=stdev(angles) / math.sqrt(len(angles)),
        grad_ratio=median(look["grad_ratio"][0] for look in found),
        cosine_first=states[0],
        cosine_last=states[-1],
        loss=trial.loss,
        loss_gain=baseline.loss - trial.loss,
        stop=stop,
        stop_reason=reason,
    )


def number(value: float | None) -> float:
    """metrics.jsonl has null for what is not finite."""
    return math.nan if value is None else value


def replay(trial: Trial, threshold: float, gain: float) -> tuple[int | None, str | None]:
    """Returns the step at which ``AutoStop`` would have ended the alignment, and why."""
    auto_stop = AutoStop((trial.block,), threshold, gain)
    for step, look in trial.looks:
        finite = {
            "block_cosine": [[number(x) for x in cosines] for cosines in look["block_cosine"]],
            "grad_cosine": [number(x) for x in look["grad_cosine"]],
        }
        reason = auto_stop.look(step, finite)
        if reason is not None:
            return step, reason
    return None, None


def propose(
    evidence: Sequence[Evidence], lambda_0: float, target_ratio: float, steps: int
) -> Proposal:
    """Chooses by the rules below.

    k: the earliest block whose gradients' cosine is the highest, or within that one's standard
    error of it. lambda_0: that at which the ratio of the two gradients' norms there, to which it is
    proportional, would have been ``target_ratio``. s_stop: where auto stop's rule ends that run.

    Args:
        evidence: of each candidate.
        lambda_0: with which the runs were trained.
        target_ratio: of the alignment's gradient to the NLL's.
        steps: of the runs.
    """
    best = max(evidence, key=lambda e: e.grad_cosine)
    close = [e for e in evidence if e.grad_cosine >= best.grad_cosine - best.grad_cosine_error]
    chosen = min(close, key=lambda e: e.block)
    weight = float(f"{lambda_0 * target_ratio / chosen.grad_ratio:.2g}")
    tie = (
        f"the highest, {best.grad_cosine:.4f} of block {best.block}, is within its standard error "
        f"({best.grad_cosine_error:.4f}), and this block is earlier"
        if chosen is not best
        else "the highest of the candidates"
    )
    return Proposal(
        k=chosen.block,
        lambda_0=weight,
        s_stop=chosen.stop,
        because={
            "k": f"the gradients' cosine there is {chosen.grad_cosine:.4f}: {tie}",
            "lambda_0": f"at {lambda_0:g} the alignment's gradient is {chosen.grad_ratio:.3g} "
            f"times the NLL's (median), and is to be {target_ratio:g} times",
            "s_stop": chosen.stop_reason or f"nothing ended the alignment within {steps} steps",
        },
    )


def baseline_of(trials: Sequence[Trial]) -> Trial:
    return next(trial for trial in trials if trial.name == BASELINE)
