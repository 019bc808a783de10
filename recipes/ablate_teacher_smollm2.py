"""Does a bad teacher hurt where the good one is the real SmolLM2-135M?

python recipes/ablate_teacher_smollm2.py [--list | --report]
"""

from lab.arms import BASELINE, NOISE, ONE, SCREENED
from lab.recipe import Recipe, main
from lab.runs import SMOLLM2
from lab.smollm2_arms import LET, LET_UNDER, TEACHER

BAD = {
    level: f"outputs/lab_smollm2/teacher_{level}"
    for level in (*map("noise_{}".format, NOISE), "random")
}

RECIPE = Recipe(
    name="ablate_teacher_smollm2",
    hypothesis=(
        "As in the first setting: noise takes away what the teacher gives, and a random one is no "
        "better than none and ends no more than 0.02 nats above the baseline."
    ),
    metric=SCREENED,
    arms={
        "good": LET,
        **{
            level.replace("_", " "): {**LET_UNDER, **TEACHER, "teacher.checkpoint": folder}
            for level, folder in BAD.items()
        },
    },
    seeds=ONE,
    baseline=BASELINE,
    place=SMOLLM2,
)

if __name__ == "__main__":
    main(RECIPE)
