"""[checkpoint]: what is saved, and which checkpoint will be loaded."""

from pathlib import Path

from let_titan.checkpoint.folders import whole_checkpoints
from let_titan.checks.mistakes import Mistakes
from let_titan.config import LetJobConfig
from let_titan.errors import ConfigError


def checkpoint_mistakes(config: LetJobConfig, world_size: int) -> Mistakes:
    checkpoint = config.checkpoint
    if checkpoint.keep_latest_k == 1:
        yield ConfigError(
            "checkpoint.keep_latest_k = 1 would delete the last checkpoint while the next is being "
            "written: set 0 (keep all) or at least 2."
        )
    if checkpoint.enable and checkpoint.load_only:
        yield from load_only_mistakes(config)
    if checkpoint.create_seed_checkpoint and (not checkpoint.enable or world_size > 1):
        yield ConfigError(
            "checkpoint.create_seed_checkpoint = true needs checkpoint.enable = true and a single "
            "process: start it with --nproc_per_node 1."
        )
    elif checkpoint.create_seed_checkpoint:
        there = whole_checkpoints(checkpoint_folder(config))
        if 0 in there:
            yield ConfigError(
                f"checkpoint.create_seed_checkpoint = true would overwrite "
                f"{str(checkpoint_folder(config) / 'step-0')!r}: remove it, or choose another "
                "job.dump_folder."
            )
        elif there:
            yield ConfigError(
                "checkpoint.create_seed_checkpoint = true makes the step 0 that a run begins with, "
                f"and the one in {config.job.dump_folder!r} has come to step {max(there)}: choose "
                "another job.dump_folder."
            )


def load_only_mistakes(config: LetJobConfig) -> Mistakes:
    """Going back takes the lines after the step out of the run's files; its checkpoints would stay,
    whose lines they are."""
    folder, step = checkpoint_folder(config), resume_step(config)
    there = whole_checkpoints(folder)
    if step in there and step < (last := max(there)):
        # Of step 0 torchtitan loads the weights alone, as initial_load_model_only does
        whole = " and checkpoint.initial_load_model_only = false" if step > 0 else ""
        yield ConfigError(
            f"checkpoint.load_only = true with checkpoint.load_step = {step} would cut "
            f"metrics.jsonl there and leave the checkpoints up to step {last} without their lines: "
            f"choose another job.dump_folder, with checkpoint.initial_load_path = "
            f"{str(there[step])!r}{whole}."
        )


def checkpoint_folder(config: LetJobConfig) -> Path:
    return Path(config.job.dump_folder) / config.checkpoint.folder


def resume_step(config: LetJobConfig) -> int:
    """Returns the step whose checkpoint the run will load, 0 without one."""
    if not config.checkpoint.enable:
        return 0
    if config.checkpoint.load_step >= 0:
        return config.checkpoint.load_step
    return max(whole_checkpoints(checkpoint_folder(config)), default=0)


def differs(config: LetJobConfig, what: str, cure: str) -> ConfigError:
    return ConfigError(
        f"The run in {config.job.dump_folder!r} goes on from step {resume_step(config)}, and its "
        f"{what}: set {cure}, or choose another job.dump_folder."
    )
