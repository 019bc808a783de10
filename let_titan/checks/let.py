"""[let]: its steps and pairs, and what its loss does not go with."""

from let_titan.checks.mistakes import Mistakes, raised_by
from let_titan.config import LetJobConfig, distills
from let_titan.errors import ConfigError
from let_titan.plan import LetPlan, blocks_by_letter, parse_pair
from let_titan.ranges import FRACTION, POSITIVE
from let_titan.student.flavors import FLAVORS


def let_mistakes(config: LetJobConfig) -> Mistakes:
    """What makes the plan itself unclear."""
    let, steps = config.let, config.training.steps
    if not let.enable:
        return
    if steps > 0 and let.s_stop_fraction in FRACTION:
        s_stop = let.s_stop or round(let.s_stop_fraction * steps)
        if not 1 <= s_stop <= steps:
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
    if let.auto_stop and let.diagnostics_freq == 0:
        yield ConfigError(
            "let.auto_stop = true looks at the diagnostics, and let.diagnostics_freq is 0: set it "
            "to the number of steps between two looks, e.g. 10."
        )
    yield from loss_mistakes(config)


def loss_mistakes(config: LetJobConfig) -> Mistakes:
    """What a loss does not go with: width maps, and layouts in which it would be another."""
    let, layout = config.let, config.parallelism
    cut = max(layout.tensor_parallel_degree, layout.context_parallel_degree)
    if let.loss == "cka" and cut > 1:
        yield ConfigError(
            'let.loss = "cka" needs whole sequences, which tensor and context parallelism cut: set '
            "both degrees to 1, or choose a loss of single tokens."
        )
    if let.loss == "cca" and let.width_map != "interpolate":
        yield ConfigError(
            f'let.loss = "cca" finds directions of its own at both widths, and let.width_map = '
            f"{let.width_map!r} would change the teacher's: leave it out."
        )


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
        if pair.weight not in POSITIVE:
            yield ConfigError(f"let.pairs has a weight of {pair.weight}: it must be above 0.")
