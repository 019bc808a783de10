"""Does a student of 350M on one GPU, three times its teacher's size, learn from SmolLM2-135M?

python recipes/compare_methods_gpu_350m.py [--minutes 9] [--list | --report]

After compare_methods_gpu, whose learning rate it takes untuned.
"""

from lab.arms import PAIRED, THREE
from lab.gpu_arms import LARGER, methods
from lab.recipe import Recipe, main
from lab.runs import GPU

RECIPE = Recipe(
    name="compare_methods_gpu_350m",
    hypothesis=(
        "The order is that of 124M: baseline, LET, SALT, RKD, each below the one before; what RKD "
        "gains is less, and what LET gains no less, since the student is larger than its teacher."
    ),
    metric=PAIRED,
    arms=methods(LARGER, k=3),  # of 24 blocks
    seeds=THREE,
    baseline=LARGER,
    place=GPU,
)

if __name__ == "__main__":
    main(RECIPE)
