"""A trial: where a run is killed, whom of it, and when."""

import random
from dataclasses import dataclass

POINTS = ("in a step", "while saving", "while purging", "while saving again", "at s_stop")


@dataclass
class Trial:
    """What is done to a run; ``call`` is which call of the point's function does not return."""

    seed: int
    point: str
    victim: str  # "rank 0", "rank 1" or "all ranks"
    async_mode: str
    call: int
    delay_s: float


def plan_trial(seed: int, quiet_s: float, saves: int) -> Trial:
    """Draws a trial; points take turns, so that each is met as often."""
    draw = random.Random(seed)
    point = POINTS[seed % len(POINTS)]
    victim = draw.choice(["rank 0", "rank 1", "all ranks"])
    if point == "while purging":  # rank 0 alone deletes
        victim = draw.choice(["rank 0", "all ranks"])
    calls = {"while saving": saves, "while purging": saves - 2, "while saving again": saves // 2}
    return Trial(
        seed=seed,
        point=point,
        victim=victim,
        async_mode=draw.choice(["disabled", "async"]),
        call=draw.randint(1, calls.get(point, 1)),
        delay_s=draw.uniform(0.3, 1.0) * quiet_s,
    )
