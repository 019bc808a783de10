"""[distill]: its numbers, and what it does not go with."""

import math

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
    if not 0 < distill.weight <= 1:
        yield ConfigError(f"distill.weight = {distill.weight} must be above 0 and at most 1.")
    if not (math.isfinite(distill.temperature) and distill.temperature > 0):
        yield ConfigError(
            f"distill.temperature = {distill.temperature} must be a finite number above 0."
        )
    if distill.method == "salt" and steps > 0 and not 1 <= distill.n_kd <= steps:
        yield ConfigError(
            f"distill.n_kd = {distill.n_kd} must lie between 1 and training.steps = {steps}."
        )
    if distill.select_of < 1 or distill.select_top_k < 1:
        yield ConfigError(
            f"distill.select_of = {distill.select_of} and distill.select_top_k = "
            f"{distill.select_top_k} must be at least 1."
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
    yield from layout_of_logits_mistakes(config)


def layout_of_logits_mistakes(config: LetJobConfig) -> Mistakes:
    for kind in ("pipeline", "context"):
        degree = getattr(config.parallelism, f"{kind}_parallel_degree")
        if degree > 1:
            yield ConfigError(
                f"[distill] needs logits of whole sequences in one stage, and parallelism.{kind}_"
                f"parallel_degree = {degree} cuts them: set it to 1, and shard with FSDP2 or TP."
            )
