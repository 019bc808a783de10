"""Which part of the teacher should meet which part of the student?

python recipes/ablate_layers.py [--list]
"""

from lab.arms import BASELINE, LET, THREE
from lab.recipe import Recipe, main

RECIPE = Recipe(
    name="ablate_layers",
    hypothesis=(
        "As in the paper: the teacher's last layer with the student's early block (L2E: the "
        "lab's LET) is best, and its middle is worse than its last whatever it meets."
    ),
    metric=(
        "The paired difference to the baseline in validation loss at the last step, with its 95 % "
        "interval (paired t); an arm wins if the interval excludes zero."
    ),
    arms={
        "L2E": LET,
        **{name: {**LET, "let.pairs": name} for name in ("L2M", "L2L", "M2E", "M2M", "M2L")},
    },
    seeds=THREE,
    baseline=BASELINE,
)

if __name__ == "__main__":
    main(RECIPE)
