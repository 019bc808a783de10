"""The teacher: a small pretrained causal LM, frozen, that gives hidden states and then leaves."""

from let_titan.teacher.load import load_teacher
from let_titan.teacher.model import Teacher
from let_titan.teacher.sources import check_teacher, prepare_teacher, read_vocabulary

__all__ = ["Teacher", "check_teacher", "load_teacher", "prepare_teacher", "read_vocabulary"]
