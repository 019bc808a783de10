"""What the lab's arms have in common."""

BASELINE: dict[str, str] = {}

LET = {
    "let.enable": "true",
    "let.recipe": "paper",  # cosine, interpolate, linear from 0.1 to s_stop at 15 % of the steps
    "let.k": "2",  # of 6 blocks
    "teacher.checkpoint": "outputs/lab/teacher",
    "teacher.dtype": "float32",
}

TEACHER = {key: value for key, value in LET.items() if key.startswith("teacher.")}

RKD = {**TEACHER, "distill.method": "rkd"}

SALT = {**TEACHER, "distill.method": "salt", "distill.n_kd": "120"}  # LET's s_stop

THREE = (0, 1, 2)
"""Seeds: the least number that gives an interval worth the name."""

NOISE = ("0.1", "0.3", "1.0")
"""Standard deviations of the noise on a bad teacher's weights, in those of each weight matrix."""
