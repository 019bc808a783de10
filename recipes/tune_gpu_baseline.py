"""Which learning rate and initialisation serve the baseline of 124M on one GPU best?

python recipes/tune_gpu_baseline.py [--minutes 9] [--list | --report]
"""

from collections.abc import Mapping

from lab.recipe import Recipe, main
from lab.runs import GPU


def keys(scheme: str, lr: str) -> Mapping[str, str]:
    return {"model.init_scheme": scheme, "optimizer.lr": lr}


RECIPE = Recipe(
    name="tune_gpu_baseline",
    hypothesis=(
        "1e-3 is within seeds of the best, and llama's initialisation, far behind in the lab's "
        "first setting, is within 0.02 of torchtitan's after 52M tokens."
    ),
    metric=(
        "The lowest validation loss at the last step, one seed; its settings then stand in "
        "recipes/lab/gpu.toml for every arm."
    ),
    arms={
        f"{scheme}, lr {lr}": keys(scheme, lr)
        for scheme, lr in [
            ("torchtitan", "5e-4"),
            ("torchtitan", "2e-3"),
            ("torchtitan", "4e-3"),
            ("llama", "1e-3"),
        ]
    },
    seeds=(0,),
    baseline=keys("torchtitan", "1e-3"),
    place=GPU,
)

if __name__ == "__main__":
    main(RECIPE)
