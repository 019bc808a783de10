"""Does a bad teacher hurt?

python recipes/ablate_teacher.py [--list]
"""

from lab.arms import BASELINE, LET, NOISE, THREE
from lab.recipe import Recipe, main

RECIPE = Recipe(
    name="ablate_teacher",
    hypothesis=(
        "The more noise on the teacher's weights, the less it helps; a random teacher is no better "
        "than none and does not end worse than 0.02 nats above the baseline, since it leaves early."
    ),
    metric=(
        "The paired difference to the baseline in validation loss at the last step, with its 95 % "
        "interval (paired t); an arm wins if the interval excludes zero."
    ),
    arms={
        "good": LET,
        **{
            f"noise {level}": {**LET, "teacher.checkpoint": f"outputs/lab/teacher_noise_{level}"}
            for level in NOISE
        },
        "random": {**LET, "teacher.checkpoint": "outputs/lab/teacher_random"},
    },
    seeds=THREE,
    baseline=BASELINE,
)

if __name__ == "__main__":
    main(RECIPE)
