"""The student: torchtitan's Llama 3 with an alignment at the output of block k."""

from let_titan.student.args import LetModelArgs
from let_titan.student.flavors import FLAVORS
from let_titan.student.model import LetTransformer
from let_titan.student.parallelize import parallelize_student

__all__ = ["FLAVORS", "LetModelArgs", "LetTransformer", "parallelize_student"]
