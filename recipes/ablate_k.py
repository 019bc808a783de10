"""Which block of the student should be aligned?

python recipes/ablate_k.py [--list]
"""

from lab.arms import BASELINE, LET, THREE
from lab.recipe import Recipe, main

RECIPE = Recipe(
    name="ablate_k",
    hypothesis=(
        "An early block is better than a late one: the blocks above it refine what was absorbed."
    ),
    metric=(
        "The paired difference to the baseline in validation loss at the last step, with its 95 % "
        "interval (paired t); an arm wins if the interval excludes zero."
    ),
    arms={f"block {k}": {**LET, "let.k": k} for k in ("1", "2", "3", "4", "5", "6")},
    seeds=THREE,
    baseline=BASELINE,
)

if __name__ == "__main__":
    main(RECIPE)
