"""What the lab's arms have in common."""

BASELINE: dict[str, str] = {}

LET = {
    "let.enable": "true",
    "let.recipe": "paper",  # cosine, interpolate, linear from 0.1 to s_stop at 15 % of the steps
    "let.k": "2",  # of 6 blocks
    "teacher.checkpoint": "recipes/lab/made/teacher",
    "teacher.dtype": "float32",
}

TEACHER = {key: value for key, value in LET.items() if key.startswith("teacher.")}

RKD = {**TEACHER, "distill.method": "rkd"}

SALT = {**TEACHER, "distill.method": "salt", "distill.n_kd": "120"}  # LET's s_stop

THREE = (0, 1, 2)
"""Seeds where the question decides: the least number that gives an interval worth the name."""

ONE = (0,)
"""Seeds of the other questions at first: an arm that stands out there is worth two more."""

NOISE = ("0.3", "1.0")
"""Standard deviations of the noise on a bad teacher's weights, in those of each weight matrix."""

PAIRED = (
    "The paired difference to the baseline in validation loss at the last step, with its 95 % "
    "interval (paired t); an arm wins if the interval excludes zero."
)
SCREENED = (
    "The difference to the baseline in validation loss at the last step, one seed, held against "
    "what seeds do to the same arms in compare_methods: a screening, which decides nothing alone."
)
"""Deciding metrics, with three seeds and with one."""
