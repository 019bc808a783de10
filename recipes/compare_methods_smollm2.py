"""Does LET beat the baseline, and distillation through logits, under the real SmolLM2-135M?

python recipes/compare_methods_smollm2.py [--list | --report]
"""

from lab.arms import BASELINE, PAIRED, THREE
from lab.recipe import Recipe, main
from lab.runs import SMOLLM2
from lab.smollm2_arms import FLOPS, LET, RKD, SALT

RECIPE = Recipe(
    name="compare_methods_smollm2",
    hypothesis=(
        "As in the first setting: LET cannot be told from its baseline, RKD ends far below it, and "
        "SALT between them, though this teacher has read other text than the student's."
    ),
    metric=PAIRED + FLOPS,
    arms={"LET": LET, "SALT": SALT, "RKD": RKD},
    seeds=THREE,
    baseline=BASELINE,
    place=SMOLLM2,
)

if __name__ == "__main__":
    main(RECIPE)
