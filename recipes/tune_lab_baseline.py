"""Which initialisation, learning rate and warm-up serve the lab's baseline best?

python recipes/tune_lab_baseline.py [--list | --report]
"""

from collections.abc import Mapping

from lab.recipe import Recipe, main


def keys(scheme: str, lr: str, warmup: str) -> Mapping[str, str]:
    return {
        "model.init_scheme": scheme,
        "optimizer.lr": lr,
        "lr_scheduler.warmup_steps": warmup,
    }


RECIPE = Recipe(
    name="tune_lab_baseline",
    hypothesis=(
        "The initialisation moves the final loss more than LET does, so a baseline that was not "
        "tuned would prove nothing."
    ),
    metric=(
        "The lowest validation loss at the last step, one seed; its settings then stand in "
        "recipes/lab/student.toml for every arm of every recipe."
    ),
    arms={
        f"{scheme}, lr {lr}, warm-up {warmup}": keys(scheme, lr, warmup)
        for scheme, lr, warmup in [
            ("torchtitan", "1e-3", "40"),
            ("torchtitan", "6e-3", "40"),
            ("torchtitan", "3e-3", "80"),
            ("llama", "3e-3", "40"),
        ]
    },
    seeds=(0,),
    baseline=keys("torchtitan", "3e-3", "40"),
)

if __name__ == "__main__":
    main(RECIPE)
