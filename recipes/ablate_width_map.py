"""How should the teacher's width meet the student's?

python recipes/ablate_width_map.py [--list | --report]
"""

from lab.arms import BASELINE, LET, ONE, SCREENED
from lab.recipe import Recipe, main

MAPS = ("interpolate", "truncate", "orthogonal", "procrustes", "linear", "orthogonal_learned")

RECIPE = Recipe(
    name="ablate_width_map",
    hypothesis=(
        "An orthogonal map keeps all of the teacher's angles and beats interpolation, which smears "
        "features that are no neighbours in any sense. (Written before any run; the first three "
        "maps had been run, and told apart by no more than seeds do, when the rest was written:) A "
        "map that is fitted to the student (procrustes, linear, orthogonal_learned) comes to a "
        "higher cosine by far, since the student need not come to the teacher's own axes, and "
        "therefore asks less of the student: none of the three gains more than seeds do."
    ),
    metric=SCREENED,
    arms={name: {**LET, "let.width_map": name} for name in MAPS},
    seeds=ONE,
    baseline=BASELINE,
)

if __name__ == "__main__":
    main(RECIPE)
