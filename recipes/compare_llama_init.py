"""Does LET keep to the end what it gains early where the student's initial weights are poor?

python recipes/compare_llama_init.py [--list | --report]
"""

from lab.arms import LET, PAIRED, THREE
from lab.recipe import Recipe, main
from tune_llama_init import keys

BASELINE = keys("3e-3", "80")

RECIPE = Recipe(
    name="compare_llama_init",
    hypothesis=(
        "From llama's initial weights, tuned for themselves, LET with lambda_0 = 1 is still below "
        "its baseline at the end, by less than the 0.165 of its first 120 steps (why_no_gain); "
        "with the paper's 0.1 it cannot be told from it. No arm comes to what torchtitan's do."
    ),
    metric=PAIRED,
    arms={
        "lambda_0 = 0.1": BASELINE | LET,
        "lambda_0 = 1": BASELINE | LET | {"let.lambda_0": "1"},
    },
    seeds=THREE,
    baseline=BASELINE,
)

if __name__ == "__main__":
    main(RECIPE)
