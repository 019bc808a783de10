"""How should the teacher's width meet the student's?

python recipes/ablate_width_map.py [--list]
"""

from lab.arms import BASELINE, LET, THREE
from lab.recipe import Recipe, main

RECIPE = Recipe(
    name="ablate_width_map",
    hypothesis=(
        "An orthogonal map keeps all of the teacher's angles and beats interpolation, which smears "
        "features that are no neighbours in any sense."
    ),
    metric=(
        "The paired difference to the baseline in validation loss at the last step, with its 95 % "
        "interval (paired t); an arm wins if the interval excludes zero."
    ),
    arms={
        name: {**LET, "let.width_map": name} for name in ("interpolate", "truncate", "orthogonal")
    },
    seeds=THREE,
    baseline=BASELINE,
)

if __name__ == "__main__":
    main(RECIPE)
