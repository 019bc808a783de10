"""What the arms on one GPU have in common: SmolLM2-135M over students of its own size and larger.

No cache of states: LET's steps have a teacher for 7.9M tokens, 1,152 bytes each. Reading 9 GB takes
a disk of 1 GB/s nine seconds, the teacher's forward less (docs/lab-on-a-gpu.md).
"""

from lab.recipe import Keys

TEACHER = {"teacher.checkpoint": "assets/teachers/smollm2-135m"}  # in bfloat16, as by default

LET = {
    **TEACHER,
    "let.enable": "true",
    "let.recipe": "paper",  # cosine, interpolate, linear from 0.1 to s_stop at 15 % of the steps
}

RKD = {**TEACHER, "distill.method": "rkd"}

SALT = {**TEACHER, "distill.method": "salt", "distill.n_kd": "240"}  # LET's s_stop

LARGER = {
    "model.flavor": "350M",  # 409.0M with SmolLM2's ids
    "training.local_batch_size": "16",  # the same batches, in the 80 GB that preflight knows
    "training.global_batch_size": "32",
}


def methods(student: Keys, k: int) -> dict[str, Keys]:
    """Returns the arms of a comparison of methods for ``student``, LET on its block ``k``."""
    arms = {"LET": {**LET, "let.k": str(k)}, "SALT": SALT, "RKD": RKD}
    return {name: {**student, **arm} for name, arm in arms.items()}
