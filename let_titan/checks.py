"""Mistakes in the input, found before anything is loaded: each a sentence with its cure."""

import json
import math
import os
import re
from pathlib import Path

from torchtitan.tools.logging import logger

from let_titan.config import LetJobConfig
from let_titan.data import check_dataset
from let_titan.errors import ConfigError
from let_titan.plan import LetPlan, resolve_plan
from let_titan.student.flavors import FLAVORS
from let_titan.teacher import check_teacher, read_vocabulary
from let_titan.tokenizer import check_same_vocabulary, load_tokenizer
from let_titan.upstream import converter_names

MODEL_NAME = "let_llama"


def check_config(config: LetJobConfig) -> LetPlan:
    """Checks a parsed config and returns its plan.

    Raises:
        ConfigError: names the first mistake and its cure.
    """
    check_model(config)
    check_layout(config)
    check_checkpoint(config)
    check_let(config)
    plan = resolve_plan(config)
    check_pairs(plan, config)
    check_data(config)
    check_s_stop_stays(config, plan)
    if plan.pairs and resume_step(config) < plan.s_stop:
        check_teacher_of(config, plan)
    return plan


def resume_step(config: LetJobConfig) -> int:
    """Returns the step whose checkpoint the run will load, 0 without one.

    A run that is past s_stop needs no teacher, and none is looked for.
    """
    if not config.checkpoint.enable:
        return 0
    if config.checkpoint.load_step >= 0:
        return config.checkpoint.load_step
    folder = Path(config.job.dump_folder) / config.checkpoint.folder
    names = [path.parent.name for path in folder.glob("step-*/.metadata")]
    matches = [re.fullmatch(r"step-(\d+)", name) for name in names]
    return max((int(match[1]) for match in matches if match), default=0)


def check_s_stop_stays(config: LetJobConfig, plan: LetPlan) -> None:
    """A run that goes on keeps its s_stop: a fraction of more steps would call the teacher back."""
    summary = Path(config.job.dump_folder) / "summary.json"
    if resume_step(config) == 0 or not plan.pairs or not summary.exists():
        return
    before = json.loads(summary.read_text())["let_plan"]
    if before is not None and before["s_stop"] != plan.s_stop:
        raise ConfigError(
            f"This run's s_stop was {before['s_stop']} and would become {plan.s_stop}: pass "
            f"--let.s_stop {before['s_stop']} to go on with it, or choose another job.dump_folder."
        )


def check_model(config: LetJobConfig) -> None:
    if config.model.name != MODEL_NAME:
        raise ConfigError(
            f"model.name = {config.model.name!r} is not trained here: write {MODEL_NAME!r}."
        )
    if config.model.flavor not in FLAVORS:
        raise ConfigError(
            f"model.flavor = {config.model.flavor!r} is unknown: choose one of "
            f"{', '.join(FLAVORS)}."
        )
    for converter in config.model.converters:
        if converter not in converter_names():
            raise ConfigError(
                f"model.converters has {converter!r}: choose from {', '.join(converter_names())}."
            )
    folder = Path(config.model.hf_assets_path)
    if not any((folder / name).exists() for name in ("tokenizer.json", "vocab.json", "vocab.txt")):
        raise ConfigError(
            f"model.hf_assets_path = {str(folder)!r} holds no tokenizer.json: give the folder of "
            "the teacher's tokenizer (scripts/fetch_teacher.py makes the demo's)."
        )


def check_layout(config: LetJobConfig) -> None:
    """Refuses by name the layouts whose gradients are not proven here yet."""
    parallelism = config.parallelism
    for key in ("pipeline_parallel_degree", "context_parallel_degree"):
        degree = getattr(parallelism, key)
        if degree > 1:
            raise ConfigError(
                f"parallelism.{key} = {degree} is not supported yet: set it to 1 and shard with "
                "FSDP2 (data_parallel_shard_degree)."
            )
    if parallelism.tensor_parallel_degree > 1 and resolve_plan(config).pairs:
        raise ConfigError(
            f"parallelism.tensor_parallel_degree = {parallelism.tensor_parallel_degree} is not "
            "supported with let.enable yet: set it to 1 and shard with FSDP2."
        )
    replicate, shard = data_parallel_degrees(config)
    if replicate > 1 and shard == 1:
        raise ConfigError(
            f"parallelism.data_parallel_replicate_degree = {replicate} without sharding is DDP, "
            "whose gradients torchtitan 0.2.2 scales wrongly: set it to 1, or to less than the "
            "number of processes for HSDP."
        )


def data_parallel_degrees(config: LetJobConfig) -> tuple[int, int]:
    """Returns (replicate, shard) for this number of processes.

    Raises:
        ConfigError: the processes, or the global batch, do not divide.
    """
    parallelism, training = config.parallelism, config.training
    world = int(os.environ.get("WORLD_SIZE", 1))
    replicate = parallelism.data_parallel_replicate_degree
    others = replicate * parallelism.tensor_parallel_degree
    shard = parallelism.data_parallel_shard_degree
    shard = world // others if shard < 0 else shard
    if shard * others != world or shard < 1:
        raise ConfigError(
            f"{world} processes do not make data_parallel_replicate_degree = {replicate} x "
            f"data_parallel_shard_degree = {parallelism.data_parallel_shard_degree} x "
            f"tensor_parallel_degree = {parallelism.tensor_parallel_degree}: change "
            "--nproc_per_node or a degree (-1 shards over what is left)."
        )
    micro = training.local_batch_size * replicate * shard
    if training.global_batch_size > 0 and training.global_batch_size % micro:
        raise ConfigError(
            f"training.global_batch_size = {training.global_batch_size} is no multiple of "
            f"local_batch_size x data-parallel ranks = {micro}: change one of them."
        )
    return replicate, shard


def check_checkpoint(config: LetJobConfig) -> None:
    if config.checkpoint.keep_latest_k == 1:
        raise ConfigError(
            "checkpoint.keep_latest_k = 1 would delete the last checkpoint while the next is being "
            "written: set 0 (keep all) or at least 2."
        )
    if not config.checkpoint.create_seed_checkpoint:
        return
    if not config.checkpoint.enable or int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise ConfigError(
            "checkpoint.create_seed_checkpoint = true needs checkpoint.enable = true and a single "
            "process: start it with --nproc_per_node 1."
        )


def check_let(config: LetJobConfig) -> None:
    let, steps = config.let, config.training.steps
    if not let.enable:
        return
    if not (math.isfinite(let.lambda_0) and let.lambda_0 >= 0):
        raise ConfigError(f"let.lambda_0 = {let.lambda_0} must be a finite number >= 0.")
    # A fraction of 0 is what an explicit s_stop leaves, even one of 0: that is told below.
    if let.s_stop == 0 and not 0 <= let.s_stop_fraction <= 1:
        raise ConfigError(
            f"let.s_stop_fraction = {let.s_stop_fraction} must be above 0 and at most 1."
        )
    s_stop = let.s_stop or round(let.s_stop_fraction * steps)
    if not 1 <= s_stop <= steps:
        raise ConfigError(f"let.s_stop = {s_stop} must lie between 1 and training.steps = {steps}.")
    if not config.teacher.checkpoint and let.lambda_0 > 0:
        raise ConfigError(
            "let.enable = true needs teacher.checkpoint: give a hub id, a local folder or a "
            ".gguf file."
        )


def check_pairs(plan: LetPlan, config: LetJobConfig) -> None:
    n_layers = FLAVORS[config.model.flavor].n_layers
    for pair in plan.pairs:
        if not 1 <= pair.block <= n_layers:
            key = "let.pairs' student block" if config.let.pairs else "let.k"
            raise ConfigError(
                f"{key} = {pair.block} must lie between 1 and the {n_layers} blocks of "
                f"{config.model.flavor!r}."
            )
        if not (math.isfinite(pair.weight) and pair.weight > 0):
            raise ConfigError(f"let.pairs has a weight of {pair.weight}: it must be above 0.")


def check_data(config: LetJobConfig) -> None:
    check_dataset(config.training.dataset, config.training.dataset_path, "training")
    if not config.validation.enable:
        return
    check_dataset(config.validation.dataset, config.validation.dataset_path, "validation")
    if config.validation.seq_len > config.training.seq_len:
        raise ConfigError(
            f"validation.seq_len = {config.validation.seq_len} must not be longer than "
            f"training.seq_len = {config.training.seq_len}, for which the student has positions."
        )
    if config.validation.freq < 1:
        raise ConfigError(f"validation.freq = {config.validation.freq} must be at least 1.")
    if config.validation.steps < 1:
        raise ConfigError(
            f"validation.steps = {config.validation.steps} must be at least 1: without a number "
            "ranks with different shares of the data would wait for each other forever."
        )


def check_teacher_of(config: LetJobConfig, plan: LetPlan) -> None:
    teacher = config.teacher
    student = load_tokenizer(config.model.hf_assets_path)
    check_teacher(
        teacher.checkpoint,
        config.training.seq_len,
        [pair.layer for pair in plan.pairs if isinstance(pair.layer, int)],
        student.get_vocab_size(),
        teacher.trust_remote_code,
    )
    if Path(teacher.checkpoint).expanduser() == Path(config.model.hf_assets_path).expanduser():
        return
    vocabulary = read_vocabulary(teacher.checkpoint)
    if vocabulary is None:
        logger.warning(f"{teacher.checkpoint} brings no tokenizer to compare the student's with.")
    else:
        check_same_vocabulary(student.get_vocab(), vocabulary)
