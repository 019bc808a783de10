"""How should the teacher's width meet the student's?

python recipes/ablate_width_map.py [--list | --report]
"""

from lab.arms import BASELINE, LET, ONE, SCREENED
from lab.recipe import Recipe, main

RECIPE = Recipe(
    name="ablate_width_map",
    hypothesis=(
        "An orthogonal map keeps all of the teacher's angles and beats interpolation, which smears "
        "features that are no neighbours in any sense."
    ),
    metric=SCREENED,
    arms={
        name: {**LET, "let.width_map": name} for name in ("interpolate", "truncate", "orthogonal")
    },
    seeds=ONE,
    baseline=BASELINE,
)

if __name__ == "__main__":
    main(RECIPE)
