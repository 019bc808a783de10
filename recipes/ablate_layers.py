"""Which part of the teacher should meet which part of the student?

python recipes/ablate_layers.py [--list | --report]
"""

from lab.arms import BASELINE, LET, PAIRED, THREE
from lab.recipe import Recipe, main

RECIPE = Recipe(
    name="ablate_layers",
    hypothesis=(
        "As in the paper: the teacher's last layer with the student's early block (L2E: the "
        "lab's LET) is best, and its middle is worse than its last whatever it meets."
    ),
    metric=PAIRED,
    arms={
        "L2E": LET,
        **{name: {**LET, "let.pairs": name} for name in ("L2M", "L2L", "M2E", "M2M", "M2L")},
    },
    seeds=THREE,
    baseline=BASELINE,
)

if __name__ == "__main__":
    main(RECIPE)
