"""How strongly should the student be aligned at first?

python recipes/ablate_lambda.py [--list]
"""

from lab.arms import BASELINE, LET, THREE
from lab.recipe import Recipe, main

RECIPE = Recipe(
    name="ablate_lambda",
    hypothesis=(
        "0.1 is best and 3 over-aligns, as the paper has it. lambda_0 = 0 is the baseline itself, "
        "bit for bit."
    ),
    metric=(
        "The paired difference to the baseline in validation loss at the last step, with its 95 % "
        "interval (paired t); an arm wins if the interval excludes zero."
    ),
    arms={
        f"lambda_0 {value}": {**LET, "let.lambda_0": value}
        for value in ("0.01", "0.1", "0.3", "1", "3")
    },
    seeds=THREE,
    baseline=BASELINE,
)

if __name__ == "__main__":
    main(RECIPE)
