"""Which learning rate and warm-up serve the baseline best that begins with llama's initial weights?

python recipes/tune_llama_init.py [--list | --report]
"""

from lab.recipe import Recipe, main

INIT = {"model.init_scheme": "llama"}
"""Every matrix, the embeddings too, with a standard deviation of 0.02."""


def keys(lr: str, warmup: str) -> dict[str, str]:
    return {**INIT, "optimizer.lr": lr, "lr_scheduler.warmup_steps": warmup}


RECIPE = Recipe(
    name="tune_llama_init",
    hypothesis=(
        "tune_lab_baseline tried these weights once, with torchtitan's learning rate: another one "
        "takes away a part of the 0.8 nats by which they ended behind, and not the whole."
    ),
    metric=(
        "The lowest validation loss at the last step, one seed; its settings then stand in "
        "compare_llama_init."
    ),
    arms={
        f"lr {lr}, warm-up {warmup}": keys(lr, warmup)
        for lr, warmup in [("1e-3", "80"), ("6e-3", "80"), ("3e-3", "160")]
    },
    seeds=(0,),
    baseline=keys("3e-3", "80"),
)

if __name__ == "__main__":
    main(RECIPE)
