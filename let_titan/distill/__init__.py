"""Distillation through logits: the paper's baselines RKD and SALT, in the same trainer."""

from let_titan.distill.inject import Distillation
from let_titan.distill.kl import mixed_gradient
from let_titan.distill.select import selected, sequence_scores

__all__ = ["Distillation", "mixed_gradient", "selected", "sequence_scores"]
