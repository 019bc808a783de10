"""Mistakes in the input, found before anything is loaded: each a sentence with its cure."""

from let_titan.checks.checkpoint import resume_step
from let_titan.checks.export import exported_folder, last_checkpoint
from let_titan.checks.layout import data_parallel_degrees
from let_titan.checks.model import MODEL_NAME
from let_titan.checks.order import check_config, find_mistakes
from let_titan.checks.resume import is_over

__all__ = [
    "MODEL_NAME",
    "check_config",
    "data_parallel_degrees",
    "exported_folder",
    "find_mistakes",
    "is_over",
    "last_checkpoint",
    "resume_step",
]
