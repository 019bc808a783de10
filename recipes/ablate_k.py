"""Which block of the student should be aligned?

python recipes/ablate_k.py [--list | --report]
"""

from lab.arms import BASELINE, LET, ONE, SCREENED
from lab.recipe import Recipe, main

RECIPE = Recipe(
    name="ablate_k",
    hypothesis=(
        "An early block is better than a late one: the blocks above it refine what was absorbed."
    ),
    metric=SCREENED,
    arms={
        "block 1": {**LET, "let.k": "1"},
        "block 2": LET,
        "block 3": {**LET, "let.pairs": "L2M"},  # as ablate_layers writes it: one run for both
        "block 4": {**LET, "let.k": "4"},
        "block 6": {**LET, "let.pairs": "L2L"},
    },
    seeds=ONE,
    baseline=BASELINE,
)

if __name__ == "__main__":
    main(RECIPE)
