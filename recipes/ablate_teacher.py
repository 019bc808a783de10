"""Does a bad teacher hurt?

python recipes/ablate_teacher.py [--list | --report]
"""

from lab.arms import BASELINE, LET, NOISE, ONE, SCREENED
from lab.recipe import Recipe, main

RECIPE = Recipe(
    name="ablate_teacher",
    hypothesis=(
        "The more noise on the teacher's weights, the less it helps; a random teacher is no better "
        "than none and does not end worse than 0.02 nats above the baseline, since it leaves early."
    ),
    metric=SCREENED,
    arms={
        "good": LET,
        **{
            f"noise {level}": {**LET, "teacher.checkpoint": f"outputs/lab/teacher_noise_{level}"}
            for level in NOISE
        },
        "random": {**LET, "teacher.checkpoint": "outputs/lab/teacher_random"},
    },
    seeds=ONE,
    baseline=BASELINE,
)

if __name__ == "__main__":
    main(RECIPE)
