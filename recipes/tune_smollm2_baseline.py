"""Which learning rate serves the baseline of the lab's second setting best?

python recipes/tune_smollm2_baseline.py [--list | --report]
"""

from lab.recipe import Recipe, main
from lab.runs import SMOLLM2

RECIPE = Recipe(
    name="tune_smollm2_baseline",
    hypothesis="3e-3, the first setting's, is within seeds of the best for a student this narrow.",
    metric=(
        "The lowest validation loss at the last step, one seed; its settings then stand in "
        "recipes/lab/smollm2.toml for every arm."
    ),
    arms={f"lr {lr}": {"optimizer.lr": lr} for lr in ("6e-3", "1.2e-2")},
    seeds=(0,),
    baseline={"optimizer.lr": "3e-3"},
    place=SMOLLM2,
)

if __name__ == "__main__":
    main(RECIPE)
