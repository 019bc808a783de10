"""Keys that are any string to the parser, and keys that can have one value only."""

from collections.abc import Collection

from let_titan.alignment import LOSSES
from let_titan.checks.mistakes import Mistakes
from let_titan.checks.ranges import value_at
from let_titan.config import LetJobConfig
from let_titan.errors import ConfigError
from let_titan.schedule import SHAPES

CHOICES: dict[str, Collection[str]] = {
    "let.loss": LOSSES,
    "let.schedule": SHAPES,
    "optimizer.name": ("AdamW", "Adam"),
    "activation_checkpoint.determinism_check": ("default", "none"),
    "compile.components": ("model", "loss"),
    "compile.backend": ("inductor", "aot_eager", "eager"),
    # Without its train state a run would count from 0 in a folder that holds later steps.
    "checkpoint.exclude_from_loading": ("model", "optimizer", "lr_scheduler", "dataloader"),
}

ONLY = {
    "parallelism.expert_parallel_degree": (1, "the student has no experts"),
    "parallelism.expert_tensor_parallel_degree": (1, "the student has no experts"),
    "parallelism.expert_parallel_comm_backend": ("standard", "the student has no experts"),
    "parallelism.context_parallel_rotate_method": (
        "allgather",
        "torchtitan 0.2.2 reads it in its own validation alone, and trains with allgather",
    ),
    "checkpoint.initial_load_in_hf_quantized": (
        False,
        "torchtitan's Llama 3 would take quantized weights as they are stored, without scales",
    ),
    "experimental.custom_args_module": (
        "",
        "torchtitan 0.2.2 reads it once the config is parsed; job.custom_config_module adds keys",
    ),
    "debug.moe_force_load_balance": (False, "the student has no experts"),
    "fault_tolerance.enable": (False, "torchft is not supported"),
    "memory_estimation.enable": (False, "torchtitan's estimation is a program of its own"),
    "comm.mode": ("default", "nothing is trained in torchtitan's dry runs"),
}
"""The one value that a key may have, and why."""


def choice_mistakes(config: LetJobConfig) -> Mistakes:
    for path, choices in CHOICES.items():
        yield from not_among(path, value_at(config, path), choices)
    option = config.activation_checkpoint.selective_ac_option
    if option != "op" and not (option.isascii() and option.isdigit()):
        yield ConfigError(
            f'activation_checkpoint.selective_ac_option = {option!r} is unknown: write "op", or '
            'every how many blocks one is recomputed, e.g. "2".'
        )
    for path, (wanted, reason) in ONLY.items():
        value = value_at(config, path)
        if value != wanted:
            yield ConfigError(f"{path} = {value!r} cannot be used: {reason}; leave the key out.")


def not_among(path: str, value: str | list[str], choices: Collection[str]) -> Mistakes:
    for word in [value] if isinstance(value, str) else value:
        if word not in choices:
            verb = "=" if isinstance(value, str) else "has"
            yield ConfigError(f"{path} {verb} {word!r}: choose from {', '.join(choices)}.")
