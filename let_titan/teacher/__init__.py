"""The teacher: a small pretrained causal LM, frozen, that gives hidden states and then leaves."""

from let_titan.teacher.description import TeacherDescription
from let_titan.teacher.fit import check_part
from let_titan.teacher.head import read_head
from let_titan.teacher.load import load_teacher
from let_titan.teacher.model import Teacher
from let_titan.teacher.sources import check_teacher, prepare_teacher
from let_titan.teacher.states import TeacherStates
from let_titan.teacher.tokens import read_encoder, read_tokenizer
from let_titan.teacher.weights import check_weights

__all__ = [
    "Teacher",
    "TeacherDescription",
    "TeacherStates",
    "check_part",
    "check_teacher",
    "check_weights",
    "load_teacher",
    "prepare_teacher",
    "read_encoder",
    "read_head",
    "read_tokenizer",
]
