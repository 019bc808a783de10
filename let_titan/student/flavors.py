"""The students by name (model.flavor). Blocks, width and heads; the tokenizer gives the rest."""

from copy import deepcopy

from let_titan.names import Names
from let_titan.student.args import LetModelArgs


class Flavors(Names[LetModelArgs]):
    """Hands out copies: torchtitan writes a run's settings into the arguments it looks up."""

    def __getitem__(self, name: str) -> LetModelArgs:
        return deepcopy(super().__getitem__(name))


FLAVORS = Flavors(
    {
        # tests: a few seconds on a CPU
        "debug": LetModelArgs(dim=64, n_layers=4, n_heads=4, multiple_of=32),
        # scripts/demo.sh: 5.1M parameters in the blocks
        "demo": LetModelArgs(dim=256, n_layers=6, n_heads=4),
        # recipes/lab: 0.8M parameters in the teacher's blocks, 2.7M in its student's
        "lab_teacher": LetModelArgs(dim=128, n_layers=4, n_heads=4, multiple_of=32),
        "lab_student": LetModelArgs(dim=192, n_layers=6, n_heads=4, multiple_of=32),
        # recipes/lab: a teacher that this student outgrows
        "lab_small_teacher": LetModelArgs(dim=8, n_layers=2, n_heads=2, multiple_of=32),
        # recipes/lab under SmolLM2-135M: 1.2M in the blocks, the vocabulary is what costs
        "lab_narrow": LetModelArgs(dim=128, n_layers=6, n_heads=4, multiple_of=32),
        # scripts/bench_overhead.py: 14.2M in the blocks, to be timed on a CPU
        "bench": LetModelArgs(dim=384, n_layers=8, n_heads=6),
        # recipes/lab on one GPU: 61.0M in the blocks, 123.9M with SmolLM2's 49,152 ids; heads of 64
        "124M": LetModelArgs(dim=640, n_layers=12, n_heads=10),
        "350M": LetModelArgs(dim=1024, n_layers=24, n_heads=16),
        "1.4B": LetModelArgs(dim=2048, n_layers=24, n_heads=16),
        "1.4B_gqa": LetModelArgs(dim=2048, n_layers=24, n_heads=16, n_kv_heads=4),
        "3B": LetModelArgs(dim=2560, n_layers=32, n_heads=20),
        "7B": LetModelArgs(dim=4096, n_layers=32, n_heads=32),
        # Llama 3's shapes, by torchtitan's names
        "8B": LetModelArgs(
            dim=4096,
            n_layers=32,
            n_heads=32,
            n_kv_heads=8,
            ffn_dim_multiplier=1.3,
            multiple_of=1024,
        ),
        "70B": LetModelArgs(
            dim=8192,
            n_layers=80,
            n_heads=64,
            n_kv_heads=8,
            ffn_dim_multiplier=1.3,
            multiple_of=4096,
        ),
        "405B": LetModelArgs(
            dim=16384,
            n_layers=126,
            n_heads=128,
            n_kv_heads=8,
            ffn_dim_multiplier=1.2,
            multiple_of=4096,
        ),
    }
)
