"""How strongly should the student be aligned at first?

python recipes/ablate_lambda.py [--list | --report]
"""

from lab.arms import BASELINE, LET, PAIRED, THREE
from lab.recipe import Recipe, main

RECIPE = Recipe(
    name="ablate_lambda",
    hypothesis=(
        "0.1 is best and 3 over-aligns, as the paper has it. lambda_0 = 0 is the baseline itself, "
        "bit for bit."
    ),
    metric=PAIRED,
    arms={
        f"lambda_0 {value}": {**LET, "let.lambda_0": value}
        for value in ("0.01", "0.1", "0.3", "1", "3")
    },
    seeds=THREE,
    baseline=BASELINE,
)

if __name__ == "__main__":
    main(RECIPE)
