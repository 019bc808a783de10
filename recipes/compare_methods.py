"""Does LET beat the baseline, and how does it stand to distillation through logits?

python recipes/compare_methods.py [--list | --report]
"""

from lab.arms import BASELINE, LET, PAIRED, RKD, SALT, THREE
from lab.recipe import Recipe, main

RECIPE = Recipe(
    name="compare_methods",
    hypothesis=(
        "LET ends below the baseline, and below RKD, whose teacher is smaller than its student and "
        "stays to the end; SALT lies between them."
    ),
    metric=PAIRED,
    arms={"LET": LET, "RKD": RKD, "SALT": SALT},
    seeds=THREE,
    baseline=BASELINE,
)

if __name__ == "__main__":
    main(RECIPE)
