"""Keys that are right by themselves and do not go together."""

from let_titan.checks.mistakes import Mistakes
from let_titan.config import LetJobConfig, compiles
from let_titan.errors import ConfigError


def combination_mistakes(config: LetJobConfig) -> Mistakes:
    yield from optimiser_mistakes(config)
    yield from profiling_mistakes(config)
    yield from hugging_face_mistakes(config)
    memory_budget = config.activation_checkpoint.mode == "memory_budget"
    if memory_budget and not compiles(config, "model"):
        yield ConfigError(
            'activation_checkpoint.mode = "memory_budget" is the compiler\'s: set compile.enable = '
            'true with "model" in compile.components, or choose another mode.'
        )


def optimiser_mistakes(config: LetJobConfig) -> Mistakes:
    total, steps = config.lr_scheduler.total_steps, config.training.steps
    if total is not None and total < steps:
        yield ConfigError(
            f"lr_scheduler.total_steps = {total} is less than training.steps = {steps}, and the "
            "learning rate would go on falling below zero: set it to at least training.steps."
        )
    if config.optimizer.early_step_in_backward:
        yield ConfigError(
            "optimizer.early_step_in_backward = true is not supported: it applies each gradient "
            "before it is accumulated, added up over replicas, clipped or looked at, and of Adam's "
            "state torchtitan 0.2.2 then saves one weight's. Leave it off."
        )


def profiling_mistakes(config: LetJobConfig) -> Mistakes:
    profiling = config.profiling
    cycle = profiling.profiler_warmup + profiling.profiler_active
    if profiling.enable_profiling and profiling.profile_freq < cycle:
        yield ConfigError(
            f"profiling.profile_freq = {profiling.profile_freq} is less than profiler_warmup + "
            f"profiler_active = {cycle}: raise it."
        )


def hugging_face_mistakes(config: LetJobConfig) -> Mistakes:
    checkpoint = config.checkpoint
    if checkpoint.last_save_in_hf and not checkpoint.last_save_model_only:
        yield ConfigError(
            "checkpoint.last_save_in_hf = true saves no optimizer, and the run would fail at its "
            "last step: set checkpoint.last_save_model_only = true, or leave it off."
        )
    if checkpoint.initial_load_in_hf and not checkpoint.initial_load_model_only:
        yield ConfigError(
            "checkpoint.initial_load_in_hf = true has no optimizer to load: set "
            "checkpoint.initial_load_model_only = true."
        )
