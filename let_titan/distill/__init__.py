"""Distillation through logits: the paper's baselines RKD and SALT, in the same trainer."""

from let_titan.distill.objective import Distillation
from let_titan.distill.select import selected, sequence_scores, times_read

__all__ = ["Distillation", "selected", "sequence_scores", "times_read"]
