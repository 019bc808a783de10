"""Low precision, of the student (model.converters) and of the teacher: keys that go together."""

import torch

from let_titan.checks.mistakes import Mistakes
from let_titan.config import LetJobConfig, compiles, compiles_teacher, distills
from let_titan.errors import ConfigError
from let_titan.plan import LetPlan, aligns
from let_titan.teacher.float8 import float8_linears
from let_titan.teacher.load import build_part
from let_titan.teacher.sources import read_config

FLOAT8 = "quantize.linear.float8"
MXFP8 = "quantize.linear.mx"
TEACHER = "teacher.float8 = true"

FLOAT8_CAPABILITY = (8, 9)
"""The first of CUDA's that multiplies in float8."""


def teacher_in_float8(config: LetJobConfig) -> bool:
    """Whether the run has a teacher that multiplies in float8."""
    return config.teacher.float8 and (aligns(config) or distills(config))


def converter_mistakes(config: LetJobConfig) -> Mistakes:
    """What the keys themselves say, on any machine."""
    converters, float8 = config.model.converters, config.quantize.linear.float8
    for converter in converters:
        if "grouped_mm" in converter:
            yield ConfigError(
                f"model.converters has {converter!r}, which is for experts, and the student has "
                f"none: write {FLOAT8!r}."
            )
    if teacher_in_float8(config) and config.teacher.dtype == "float32" and float8.recipe_name:
        yield ConfigError(
            f"{TEACHER} with {FLOAT8}.recipe_name = {float8.recipe_name!r} gives bfloat16: set "
            'teacher.dtype = "bfloat16", or leave recipe_name out.'
        )
    if FLOAT8 not in converters and not teacher_in_float8(config):
        return
    if FLOAT8 in converters and MXFP8 in converters:
        yield ConfigError(f"model.converters has {FLOAT8!r} and {MXFP8!r}: keep one.")
    if float8.recipe_name is not None and float8.enable_fsdp_float8_all_gather:
        yield ConfigError(
            "quantize.linear.float8.enable_fsdp_float8_all_gather = true does not go with "
            f"recipe_name = {float8.recipe_name!r}: leave one of them out."
        )
    for cure, compiled in (
        ("compile.enable", FLOAT8 in converters and compiles(config, "model")),
        ("teacher.compile", teacher_in_float8(config) and compiles_teacher(config)),
    ):
        if float8.emulate and compiled:
            yield ConfigError(
                f"quantize.linear.float8.emulate = true cannot be compiled: set {cure} = false."
            )
    if float8.emulate and float8.recipe_name is not None:
        yield ConfigError(
            "quantize.linear.float8.emulate = true is lost with recipe_name = "
            f"{float8.recipe_name!r}: leave one of them out."
        )


def float8_teacher_mistakes(config: LetJobConfig, plan: LetPlan) -> Mistakes:
    """Whether there is anything to convert, in a teacher that can be read."""
    teacher = config.teacher
    if not teacher.float8:
        return
    found = read_config(*teacher.source)
    layers = [pair.layer for pair in plan.pairs]
    model, _ = build_part(found, layers, torch.bfloat16, teacher.trust_remote_code)
    if not float8_linears(model):
        yield ConfigError(
            f"{TEACHER} finds nothing to convert in {teacher.checkpoint!r}: it takes nn.Linear "
            "whose sides are multiples of 16, and GPT-2's blocks have none; leave the key out."
        )
