"""What the arms of the second setting have in common: SmolLM2-135M over the narrow student."""

from lab.runs import SMOLLM2, TOKENIZERS

TEACHER = {
    "teacher.checkpoint": "assets/teachers/smollm2-135m",
    "teacher.dtype": "float32",
}

LET_UNDER = {
    "let.enable": "true",
    "let.recipe": "paper",  # cosine, interpolate, linear from 0.1 to s_stop at 15 % of the steps
    "let.k": "2",  # of 6 blocks
}

STATES = str(SMOLLM2.lab.relative_to(SMOLLM2.root) / "states")
"""The teacher's states, written by the first run that needs them: the data has one order."""

FLOPS = " A run that found its teacher's states in the cache counts none of its FLOPs."
"""To be said beside the deciding metric where seeds share the cache."""

LET = {**LET_UNDER, **TEACHER, "teacher.cache": STATES}

RKD = {**TEACHER, "distill.method": "rkd"}

SALT = {**TEACHER, "distill.method": "salt", "distill.n_kd": "30"}  # LET's s_stop

SMALL_BATCHES = {"validation.local_batch_size": "2", "validation.steps": "32"}
"""The same sequences in less memory: a batch's logits grow with the vocabulary."""

STUDENTS = {
    name: {
        "model.hf_assets_path": str(SMOLLM2.lab.relative_to(SMOLLM2.root) / TOKENIZERS / file),
        **SMALL_BATCHES,
    }
    for name, file in {
        "r50k": "r50k_base.tiktoken",
        "cl100k": "cl100k_base.tiktoken",
        "o200k": "o200k_base.tiktoken",
        "llama3": "llama3",
    }.items()
}
"""Keys of students with a tokenizer of their own: GPT-2's, GPT-4's, GPT-4o's, Llama 3.1's."""

ALIGNED = {**LET_UNDER, **TEACHER, "teacher.tokenizer": "align"}
"""LET for such a student, beside its own keys."""
