"""Which alignment loss, and does it help to take the teacher's common direction out?

python recipes/ablate_loss.py [--list | --report]
"""

from lab.arms import BASELINE, LET, ONE, SCREENED
from lab.recipe import Recipe, main

RECIPE = Recipe(
    name="ablate_loss",
    hypothesis=(
        "Once the direction that all of the teacher's states share is taken out, matching it is no "
        "longer cheap to win, and the cosine helps more than the raw one; the other losses differ "
        "from it by less than seeds do."
    ),
    metric=SCREENED,
    arms={
        "cosine": LET,
        "cosine, centred": {**LET, "let.teacher_norm": "center"},
        "cosine, standardised": {**LET, "let.teacher_norm": "standardize"},
        "logsum": {**LET, "let.loss": "logsum"},
        "smooth_l1": {**LET, "let.loss": "smooth_l1"},
        "cka": {**LET, "let.loss": "cka"},
    },
    seeds=ONE,
    baseline=BASELINE,
)

if __name__ == "__main__":
    main(RECIPE)
