"""LET's plan, resolved once: which layer meets which block, with what weight, until when."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from let_titan.config import Let, LetJobConfig, distills
from let_titan.errors import ConfigError
from let_titan.ranges import Layer
from let_titan.schedule import lambda_at
from let_titan.student.flavors import FLAVORS

TEACHER_LETTERS = {"L": "last", "M": "middle"}
"""What the first letter of a pairing's name stands for."""


@dataclass(frozen=True)
class Pair:
    """One alignment: the student's block ``block`` (from 1) with the teacher's ``layer``."""

    layer: Layer
    block: int
    weight: float = 1.0


@dataclass(frozen=True)
class LetPlan:
    """The alignment of one run. Without pairs nothing is aligned and no teacher is loaded."""

    pairs: tuple[Pair, ...] = ()
    lambda_0: float = 0.0
    s_stop: int = 0
    schedule: str = "linear"
    horizon: int = 0  # of the schedule, where auto stop has moved s_stop before it; 0: s_stop

    def lambda_in(self, step: int) -> float:
        """Returns lambda in torchtitan's ``step`` (from 1), i.e. at s = step - 1."""
        if step > self.s_stop:
            return 0.0
        return lambda_at(step - 1, self.lambda_0, self.planned_stop, self.schedule)

    @property
    def planned_stop(self) -> int:
        """s_stop as the config has it."""
        return self.horizon or self.s_stop

    def stopped_at(self, step: int) -> "LetPlan":
        """Returns the plan that auto stop makes of this one: ``step`` is the last with a teacher.

        The steps before keep their lambda.
        """
        return replace(self, s_stop=step, horizon=self.planned_stop)

    def teacher_in(self, step: int) -> bool:
        """Whether torchtitan's ``step`` (from 1) has a teacher: s_stop is the last that does."""
        return bool(self.pairs) and step <= self.s_stop


def aligns(config: LetJobConfig) -> bool:
    """Whether [let] has any effect: it is enabled, its lambda is not zero, nothing is distilled."""
    let = config.let
    return let.enable and let.lambda_0 != 0 and not distills(config)


def resolve_plan(config: LetJobConfig) -> LetPlan:
    """Builds the plan of ``config``; a disabled LET or lambda_0 = 0 gives the empty plan.

    Raises:
        ConfigError: a malformed entry of let.pairs.
    """
    let = config.let
    if distills(config):
        return distillation_plan(config)
    if not aligns(config):
        return LetPlan()
    s_stop = let.s_stop or round(let.s_stop_fraction * config.training.steps)
    pairs = tuple(parse_pair(text, blocks_by_letter(config)) for text in let.pairs)
    return LetPlan(
        pairs=pairs or (Pair(config.teacher.layer, let.k),),
        lambda_0=let.lambda_0,
        s_stop=s_stop,
        schedule=let.schedule,
    )


def distillation_plan(config: LetJobConfig) -> LetPlan:
    """The plan of [distill]: the teacher's last states meet the block after the student's last."""
    distill, steps = config.distill, config.training.steps
    return LetPlan(
        pairs=(Pair("last", blocks_by_letter(config)["L"] + 1),),
        lambda_0=distill.weight,
        s_stop=steps if distill.method == "rkd" else distill.n_kd,
        schedule="constant",
    )


def let_in_use(config: LetJobConfig) -> Let:
    """Returns [let], or its defaults where [distill] takes its place."""
    return Let() if distills(config) else config.let


def blocks_by_letter(config: LetJobConfig) -> dict[str, int]:
    """Returns the student's block that each letter of a pairing's name stands for.

    E is let.k, M the middle one, L the last. An unknown flavor, which another check reports, is
    taken to have one block.
    """
    student = FLAVORS.get(config.model.flavor)
    n_layers = student.n_layers if student is not None else 1
    return {"E": config.let.k, "M": max(1, round(n_layers / 2)), "L": n_layers}


def parse_pair(text: str, blocks: Mapping[str, int]) -> Pair:
    """Reads "last:3:1.0" or "L2E:1.0" (the weight may be left out of either).

    Args:
        text: an entry of let.pairs.
        blocks: from ``blocks_by_letter``.
    """
    parts = text.split(":")
    layer, _, letter = parts[0].partition("2")
    if layer in TEACHER_LETTERS and letter in blocks:
        parts[:1] = [TEACHER_LETTERS[layer], str(blocks[letter])]
    try:
        layer, block, weight = [*parts, ""] if len(parts) == 2 else parts
        return Pair(
            layer if layer in ("last", "middle") else int(layer),  # type: ignore[arg-type]
            int(block),
            float(weight or 1.0),
        )
    except ValueError:
        raise ConfigError(
            f"let.pairs has {text!r}: write TEACHER_LAYER:STUDENT_BLOCK:WEIGHT, e.g. last:3:1.0, "
            "or a pairing by name, e.g. L2E:1.0."
        ) from None
