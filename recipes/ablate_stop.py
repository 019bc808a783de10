"""When should the teacher leave?

python recipes/ablate_stop.py [--list | --report]
"""

from lab.arms import BASELINE, LET, ONE, SCREENED
from lab.recipe import Recipe, main

RECIPE = Recipe(
    name="ablate_stop",
    hypothesis=(
        "Leaving early is enough: beyond 15 % of the steps there is no further gain, and a teacher "
        "smaller than its student hurts if it stays to the end."
    ),
    metric=SCREENED,
    arms={
        f"until {fraction}": {**LET, "let.s_stop_fraction": fraction}
        for fraction in ("0.05", "0.15", "0.3", "1.0")
    },
    seeds=ONE,
    baseline=BASELINE,
)

if __name__ == "__main__":
    main(RECIPE)
