"""Does the methods' order turn where the student outgrows its teacher?

python recipes/compare_methods_outgrown.py [--list | --report]
"""

from lab.arms import BASELINE, LET, PAIRED, RKD, SALT, THREE
from lab.recipe import Recipe, main

SMALL = {"teacher.checkpoint": "recipes/lab/made/small_teacher"}

RECIPE = Recipe(
    name="compare_methods_outgrown",
    hypothesis=(
        "Under a teacher whose loss its students come below (in compare_methods they never do) the "
        "paper's order shows at its lower end: RKD ends above its baseline and above LET. SALT, "
        "whose teacher leaves while it is still ahead, keeps a part of its gain; LET cannot be "
        "told from the baseline."
    ),
    metric=PAIRED,
    arms={"LET": LET | SMALL, "RKD": RKD | SMALL, "SALT": SALT | SMALL},
    seeds=THREE,
    baseline=BASELINE,
)

if __name__ == "__main__":
    main(RECIPE)
