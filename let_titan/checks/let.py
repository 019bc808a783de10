"""[let]: weight, steps and pairs, each in its range."""

import math

from let_titan.checks.mistakes import Mistakes, raised_by
from let_titan.config import LetJobConfig, distills
from let_titan.errors import ConfigError
from let_titan.plan import LetPlan, blocks_by_letter, parse_pair
from let_titan.student.flavors import FLAVORS


def let_mistakes(config: LetJobConfig) -> Mistakes:
    """What makes the plan itself unclear."""
    let, steps = config.let, config.training.steps
    if not let.enable:
        return
    if not (math.isfinite(let.lambda_0) and let.lambda_0 >= 0):
        yield ConfigError(f"let.lambda_0 = {let.lambda_0} must be a finite number >= 0.")
    # An explicit s_stop sets the fraction to 0, and may itself be 0: the other branch reports that.
    if let.s_stop == 0 and not 0 <= let.s_stop_fraction <= 1:
        yield ConfigError(
            f"let.s_stop_fraction = {let.s_stop_fraction} must be above 0 and at most 1."
        )
    else:
        s_stop = let.s_stop or round(let.s_stop_fraction * steps)
        if steps > 0 and not 1 <= s_stop <= steps:
            given = f"let.s_stop = {s_stop}"
            if let.s_stop == 0 and let.s_stop_fraction > 0:
                given = f"let.s_stop_fraction = {let.s_stop_fraction} is step {s_stop}, which"
            yield ConfigError(f"{given} must lie between 1 and training.steps = {steps}.")
    if not config.teacher.checkpoint and let.lambda_0 > 0:
        yield ConfigError(
            "let.enable = true needs teacher.checkpoint: give a hub id, a local folder or a "
            ".gguf file."
        )
    for text in let.pairs:
        yield from raised_by(parse_pair, text, blocks_by_letter(config))
    if let.diagnostics_freq < 0:
        yield ConfigError(
            f"let.diagnostics_freq = {let.diagnostics_freq} must be 0 (never) or a number of steps."
        )
    yield from auto_stop_mistakes(config)
    yield from loss_mistakes(config)


def auto_stop_mistakes(config: LetJobConfig) -> Mistakes:
    let = config.let
    if not let.auto_stop:
        return
    if let.diagnostics_freq == 0:
        yield ConfigError(
            "let.auto_stop = true looks at the diagnostics, and let.diagnostics_freq is 0: set it "
            "to the number of steps between two looks, e.g. 10."
        )
    if not -1 <= let.auto_stop_cosine <= 1:
        yield ConfigError(
            f"let.auto_stop_cosine = {let.auto_stop_cosine} must lie between -1 and 1."
        )
    if not (math.isfinite(let.auto_stop_gain) and let.auto_stop_gain >= 0):
        yield ConfigError(
            f"let.auto_stop_gain = {let.auto_stop_gain} must be a finite number >= 0."
        )


def loss_mistakes(config: LetJobConfig) -> Mistakes:
    """The keys of loss and width map, and layouts in which a loss differs from one process's."""
    let, layout = config.let, config.parallelism
    if not (math.isfinite(let.alpha) and let.alpha >= 1):
        yield ConfigError(f"let.alpha = {let.alpha} must be a finite number of at least 1.")
    if let.procrustes_every < 1:
        yield ConfigError(
            f"let.procrustes_every = {let.procrustes_every} must be a number of steps, at least 1."
        )
    yield from cca_mistakes(config)
    cut = max(layout.tensor_parallel_degree, layout.context_parallel_degree)
    if let.loss == "cka" and cut > 1:
        yield ConfigError(
            'let.loss = "cka" needs whole sequences, which tensor and context parallelism cut: set '
            "both degrees to 1, or choose a loss of single tokens."
        )


def cca_mistakes(config: LetJobConfig) -> Mistakes:
    let = config.let
    if let.loss == "cca" and let.width_map != "interpolate":
        yield ConfigError(
            f'let.loss = "cca" finds directions of its own at both widths, and let.width_map = '
            f"{let.width_map!r} would change the teacher's: leave it out."
        )
    if not (math.isfinite(let.cca_ridge) and let.cca_ridge > 0):
        yield ConfigError(f"let.cca_ridge = {let.cca_ridge} must be a finite number above 0.")
    if not 0 <= let.cca_decay <= 1:
        yield ConfigError(f"let.cca_decay = {let.cca_decay} must lie between 0 and 1.")
    if not (math.isfinite(let.cca_tokens) and let.cca_tokens >= 0):
        yield ConfigError(f"let.cca_tokens = {let.cca_tokens} must be finite and not below 0.")
    if let.cca_every < 1:
        yield ConfigError(f"let.cca_every = {let.cca_every} must be a number of steps, at least 1.")


def pair_mistakes(plan: LetPlan, config: LetJobConfig) -> Mistakes:
    if distills(config):
        return  # its pair is made by the plan
    n_layers = FLAVORS[config.model.flavor].n_layers
    for pair in plan.pairs:
        if not 1 <= pair.block <= n_layers:
            key = "let.pairs' student block" if config.let.pairs else "let.k"
            yield ConfigError(
                f"{key} = {pair.block} must lie between 1 and the {n_layers} blocks of "
                f"{config.model.flavor!r}."
            )
        if not (math.isfinite(pair.weight) and pair.weight > 0):
            yield ConfigError(f"let.pairs has a weight of {pair.weight}: it must be above 0.")
