"""What [let] asks for, resolved once: which states meet at which block, how much, until when."""

from dataclasses import dataclass
from typing import Literal

from let_titan.config import LetJobConfig
from let_titan.errors import ConfigError
from let_titan.schedule import lambda_at

Layer = int | Literal["last", "middle"]


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

    def lambda_in(self, step: int) -> float:
        """Returns lambda in torchtitan's ``step`` (from 1), i.e. at s = step - 1."""
        return lambda_at(step - 1, self.lambda_0, self.s_stop, self.schedule)

    def teacher_in(self, step: int) -> bool:
        """Whether torchtitan's ``step`` (from 1) has a teacher: s_stop is the last that does."""
        return bool(self.pairs) and step <= self.s_stop


def resolve_plan(config: LetJobConfig) -> LetPlan:
    """Builds the plan of ``config``; a disabled LET or lambda_0 = 0 gives the empty plan.

    Raises:
        ConfigError: a malformed entry of let.pairs.
    """
    let = config.let
    if not let.enable or let.lambda_0 == 0:
        return LetPlan()
    s_stop = let.s_stop or round(let.s_stop_fraction * config.training.steps)
    pairs = tuple(parse_pair(text) for text in let.pairs)
    return LetPlan(
        pairs=pairs or (Pair(config.teacher.layer, let.k),),
        lambda_0=let.lambda_0,
        s_stop=s_stop,
        schedule=let.schedule,
    )


def parse_pair(text: str) -> Pair:
    """Reads "last:3:1.0" (the weight may be left out)."""
    layer, _, rest = text.partition(":")
    block, _, weight = rest.partition(":")
    try:
        return Pair(
            layer if layer in ("last", "middle") else int(layer),  # type: ignore[arg-type]
            int(block),
            float(weight or 1.0),
        )
    except ValueError:
        raise ConfigError(
            f"let.pairs has {text!r}: write TEACHER_LAYER:STUDENT_BLOCK:WEIGHT, e.g. last:3:1.0."
        ) from None
