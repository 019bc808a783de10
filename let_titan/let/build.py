"""Builds what [let] and [distill] ask for, from plan and config."""

from collections.abc import Sequence
from typing import Any

import torch

from let_titan.alignment import Alignment, Cca, Diagnostics, Procrustes, alignment_loss
from let_titan.config import Let, LetJobConfig, compiles, distills
from let_titan.distill import Distillation
from let_titan.let.auto_stop import AutoStop
from let_titan.plan import LetPlan
from let_titan.student.flavors import FLAVORS
from let_titan.teacher.states import Fit


def build_alignment(plan: LetPlan, config: LetJobConfig) -> Alignment | None:
    """Builds what aligns the student's blocks; None without pairs, or with [distill]."""
    if not plan.pairs or distills(config):
        return None
    return Alignment(
        [(pair.block, pair.weight) for pair in plan.pairs],
        alignment_loss(config.let.loss, config.let.alpha),
        config.compile.backend if compiles(config, "loss") else None,
    )


def build_distillation(config: LetJobConfig, tp: int) -> Distillation | None:
    """Builds what the student's head is distilled by; None without [distill]."""
    if not distills(config):
        return None
    distill, reverse = config.distill, config.distill.direction == "reverse"
    return Distillation(distill.weight, distill.temperature, reverse, copies=tp)


def build_fit(let: Let, width: int) -> Fit | None:
    """Returns what is fitted to each pair's states as [let] asks, for a student of ``width``."""
    if let.loss == "cca":
        return lambda d_t, device: Cca(
            width, d_t, let.cca_ridge, let.cca_decay, let.cca_every, let.cca_tokens, device
        )
    if let.width_map == "procrustes":
        return lambda d_t, device: Procrustes(d_t, width, let.procrustes_every, device)
    return None


def build_diagnostics(
    plan: LetPlan, config: LetJobConfig, device: torch.device
) -> Diagnostics | None:
    """Builds what looks at single steps of an alignment; None where [let] does not ask for it."""
    let = config.let
    if not plan.pairs or distills(config) or let.diagnostics_freq == 0:
        return None
    return Diagnostics(
        [pair.block for pair in plan.pairs],
        FLAVORS[config.model.flavor].n_layers,
        device,
    )


def build_auto_stop(plan: LetPlan, config: LetJobConfig) -> AutoStop | None:
    """Builds what ends the alignment early; None where [let] does not ask for it."""
    let = config.let
    if not plan.pairs or distills(config) or not let.auto_stop:
        return None
    blocks = tuple(pair.block for pair in plan.pairs)
    return AutoStop(blocks, let.auto_stop_cosine, let.auto_stop_gain)


def owns_aligned_block(plan: LetPlan, model_parts: Sequence[Any]) -> bool:
    """Whether these parts of the student hold a block that ``plan`` aligns.

    Distillation's is the LM head, which counts as the block after the last.
    """
    blocks = {int(name) + 1 for part in model_parts for name in part.layers}
    heads = {part.n_layers + 1 for part in model_parts if part.output is not None}
    return not (blocks | heads).isdisjoint(pair.block for pair in plan.pairs)
