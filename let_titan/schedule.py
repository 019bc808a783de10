"""lambda(s), the weight of the alignment loss: a pure function of the step (paper, section 3)."""

import math
from collections.abc import Callable

from let_titan.names import Names


def lambda_at(s: int, lambda_0: float, s_stop: int, shape: str = "linear") -> float:
    """Returns the weight of the alignment loss.

    Args:
        s: optimiser steps done so far, from 0 (torchtitan's step number minus 1).
        lambda_0: weight at s = 0, >= 0.
        s_stop: first s with weight zero, >= 0.
        shape: ``linear`` is the paper's lambda_0 * (s_stop - s) / s_stop; ``cosine`` is half a
            period from lambda_0 to 0; ``constant`` keeps lambda_0 until s_stop; ``step`` halves
            lambda_0 at s_stop / 2.

    Raises:
        ValueError: for an unknown shape.
    """
    if shape not in SHAPES:
        raise ValueError(f"let.schedule = {shape!r} is not one of {', '.join(SHAPES)}.")
    if s >= s_stop:
        return 0.0
    return lambda_0 * SHAPES[shape](s / s_stop)


SHAPES: Names[Callable[[float], float]] = Names(
    {
        "linear": lambda progress: 1.0 - progress,
        "constant": lambda progress: 1.0,
        "cosine": lambda progress: 0.5 * (1.0 + math.cos(math.pi * progress)),
        "step": lambda progress: 1.0 if progress < 0.5 else 0.5,
    }
)
"""lambda / lambda_0 by s / s_stop in [0, 1); a module of the user's adds to it (docs/extend.md)."""
