"""[distill]: its steps, and what it does not go with."""

from let_titan.checks.float8 import FLOAT8, MXFP8
from let_titan.checks.mistakes import Mistakes
from let_titan.config import LetJobConfig
from let_titan.errors import ConfigError


def distill_mistakes(config: LetJobConfig) -> Mistakes:
    distill, steps = config.distill, config.training.steps
    if distill.method == "none":
        return
    if config.let.enable:
        yield ConfigError(
            f"[let] and distill.method = {distill.method!r} are both on: a run has one of them."
        )
    if distill.method == "salt" and steps > 0 and not 1 <= distill.n_kd <= steps:
        yield ConfigError(
            f"distill.n_kd = {distill.n_kd} must lie between 1 and training.steps = {steps}."
        )
    if distill.select_of > 1 and distill.method != "salt":
        yield ConfigError(
            f"distill.select_of = {distill.select_of} is of SALT's first stage: set distill.method "
            '= "salt", or leave it out.'
        )
    if not config.teacher.checkpoint:
        yield ConfigError(
            f"distill.method = {distill.method!r} needs teacher.checkpoint: give a hub id, a local "
            "folder or a .gguf file."
        )
    yield from head_mistakes(config)


def head_mistakes(config: LetJobConfig) -> Mistakes:
    """The LM head computes the loss in its own call, unlike a pipeline's or a converted head."""
    stages = config.parallelism.pipeline_parallel_degree
    if stages > 1:
        yield ConfigError(
            f"[distill] with parallelism.pipeline_parallel_degree = {stages}: the LM head gives a "
            "loss, and a pipeline takes logits from its last stage. Set it to 1, and shard with "
            "FSDP2, TP or CP."
        )
    linear = config.quantize.linear
    for name, section in ((FLOAT8, linear.float8), (MXFP8, linear.mx)):
        if name in config.model.converters and "output" not in section.filter_fqns:
            yield ConfigError(
                f"[distill] with {name!r} in model.converters: the LM head that gives the loss "
                f'stays as it is. Add "output" to {name}.filter_fqns.'
            )
