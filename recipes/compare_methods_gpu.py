"""Does a student of 124M on one GPU learn from SmolLM2-135M, by LET or through its logits?

python recipes/compare_methods_gpu.py [--minutes 9] [--list | --report]

First tune_gpu_baseline. What is needed and how long it is expected to take: docs/lab-on-a-gpu.md.
"""

from lab.arms import BASELINE, PAIRED, THREE
from lab.gpu_arms import methods
from lab.recipe import Recipe, main
from lab.runs import GPU

RECIPE = Recipe(
    name="compare_methods_gpu",
    hypothesis=(
        "With 64 times the first setting's tokens, 240 steps of LET are no longer warm-up alone: "
        "it ends below its baseline, by less than 0.02. SALT ends below LET, and RKD below both, "
        "as this teacher's loss is far below all that 52M tokens give the student."
    ),
    metric=PAIRED,
    arms=methods(BASELINE, k=2),  # of 12 blocks
    seeds=THREE,
    baseline=BASELINE,
    place=GPU,
)

if __name__ == "__main__":
    main(RECIPE)
