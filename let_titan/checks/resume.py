"""A run that goes on: from what is there, with the same student, tokenizer and data.

More steps or another learning rate are allowed. What the run was stands in its summary.json.
"""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from let_titan.checkpoint.folders import torn_checkpoints, whole_checkpoints
from let_titan.checks.checkpoint import checkpoint_folder, differs, resume_step
from let_titan.checks.contents import content_mistakes, goes_on
from let_titan.checks.layout import global_batch_size
from let_titan.checks.mistakes import Mistakes
from let_titan.checks.resumed_data import data_mistakes
from let_titan.checks.resumed_validation import validation_mistakes
from let_titan.config import LetJobConfig
from let_titan.errors import ConfigError
from let_titan.plan import LetPlan
from let_titan.runs import EVALUATIONS, is_complete, read_lines
from let_titan.tokenizer.build import fingerprint, load_tokenizer

IN_CHECKPOINTS = {
    "procrustes": "fitted",
    "linear": "learned linear",
    "orthogonal_learned": "learned orthogonal",
}
"""The values of let.width_map whose maps are part of a checkpoint, and what these are."""


def resume_mistakes(config: LetJobConfig, plan: LetPlan | None, world_size: int) -> Mistakes:
    """``plan`` is None where the config's own is unclear."""
    if not config.checkpoint.enable or config.checkpoint.create_seed_checkpoint:
        return
    folder = checkpoint_folder(config)
    missing = list(missing_mistakes(config, folder))
    yield from missing
    if missing:
        return
    step = resume_step(config)
    if step > config.training.steps:
        yield past_the_end(config, step)
    if step > 0:
        yield from line_mistakes(Path(config.job.dump_folder))
        yield from summary_mistakes(config, plan, world_size)
    if step in whole_checkpoints(folder):
        if is_over(config):
            return
        yield from content_mistakes(config, folder / f"step-{step}", model_only=step == 0)
    elif config.checkpoint.initial_load_path and not config.checkpoint.initial_load_in_hf:
        model_only = config.checkpoint.initial_load_model_only
        yield from content_mistakes(config, Path(config.checkpoint.initial_load_path), model_only)


def missing_mistakes(config: LetJobConfig, folder: Path) -> Mistakes:
    """A checkpoint that is named and not there."""
    checkpoint, steps = config.checkpoint, list(whole_checkpoints(folder))
    if checkpoint.load_step >= 0 and checkpoint.load_step not in steps:
        found = f"it holds the steps {', '.join(map(str, steps))}" if steps else "it holds none"
        yield ConfigError(
            f"checkpoint.load_step = {checkpoint.load_step} is not in {str(folder)!r} ({found}): "
            "choose one of them, or leave load_step out."
        )
    if steps:
        return
    initial = checkpoint.initial_load_path or checkpoint.initial_load_in_hf
    # Torn ones are removed at the start, and with them a folder that held nothing else.
    if initial and folder.exists() and set(folder.iterdir()) - set(torn_checkpoints(folder)):
        yield ConfigError(
            f"The initial checkpoint would not be loaded, since {str(folder)!r} exists, though it "
            "holds none: remove that folder."
        )
    yield from initial_mistakes(config)


def past_the_end(config: LetJobConfig, step: int) -> ConfigError:
    """training.steps was lowered below what was trained: nothing would be done, as if complete."""
    steps = config.training.steps
    earlier = [found for found in whole_checkpoints(checkpoint_folder(config)) if found <= steps]
    back = f", or checkpoint.load_step = {earlier[-1]} to go back" if earlier else ""
    return ConfigError(
        f"The run in {config.job.dump_folder!r} goes on from step {step}, which is past "
        f"training.steps = {steps}: set {step} or more{back}, or choose another job.dump_folder."
    )


def is_over(config: LetJobConfig) -> bool:
    """Whether the run is complete and ended in weights alone: there is nothing to load or to do.

    One that ended in a full checkpoint is loaded, as ever, and may be extended.
    """
    checkpoint, steps = config.checkpoint, config.training.steps
    if not checkpoint.enable or checkpoint.create_seed_checkpoint or resume_step(config) != steps:
        return False
    last = whole_checkpoints(checkpoint_folder(config)).get(steps)
    if last is None:
        return False
    try:
        return is_complete(Path(config.job.dump_folder)) and not goes_on(last)
    except (ValueError, KeyError, TypeError):  # what is damaged is told by a check of its own
        return False


def initial_mistakes(config: LetJobConfig) -> Mistakes:
    checkpoint = config.checkpoint
    if checkpoint.initial_load_in_hf:
        key = "checkpoint.initial_load_path" if checkpoint.initial_load_path else "hf_assets_path"
        folder = Path(checkpoint.initial_load_path or config.model.hf_assets_path)
        if not any(folder.glob("*.safetensors")):
            yield ConfigError(f"{key} = {str(folder)!r} holds no *.safetensors to start from.")
    elif checkpoint.initial_load_path is not None:
        folder = Path(checkpoint.initial_load_path)
        if not (folder / ".metadata").exists():
            yield ConfigError(
                f"checkpoint.initial_load_path = {str(folder)!r} is no checkpoint (it has no "
                ".metadata): give the folder of one step, such as .../checkpoint/step-100."
            )


def line_mistakes(dump: Path) -> Mistakes:
    """The files that the resume will cut can be read, but for a last line that a kill tore."""
    for name in ("metrics.jsonl", EVALUATIONS):
        try:
            if (dump / name).exists():
                read_lines(dump / name)
        except ValueError as error:
            yield ConfigError(str(error))


def summary_mistakes(config: LetJobConfig, plan: LetPlan | None, world_size: int) -> Mistakes:
    """Compares with the summary.json of the run so far, if it left one."""
    path = Path(config.job.dump_folder) / "summary.json"
    if not path.exists():
        return
    try:
        before = json.loads(path.read_text())
        flavor, tokenizer = before["config"]["model"]["flavor"], before["tokenizer"]["sha256"]
        data, let_plan = before["data"], before["let_plan"]
        batch = before["tokens_per_step"] // before["config"]["training"]["seq_len"]
    except (ValueError, KeyError, TypeError):
        yield ConfigError(
            f"{str(path)!r} is damaged or of another program: move it away to go on from the "
            "checkpoint, or choose another job.dump_folder."
        )
        return
    if flavor != config.model.flavor:
        yield differs(config, f"student is a {flavor!r}", f"model.flavor = {flavor!r}")
    theta = before["config"]["model"].get("rope_theta", 10_000.0)
    if theta != config.model.rope_theta:
        yield differs(config, f"student's RoPE has theta {theta}", f"model.rope_theta = {theta}")
    yield from seed_mistakes(config, before["config"])
    if tokenizer != fingerprint(load_tokenizer(config.model.hf_assets_path)):
        yield differs(
            config,
            "tokenizer is another one",
            f"model.hf_assets_path = {before['tokenizer'].get('path')!r}",
        )
    with suppress(ConfigError):  # processes that do not divide are told by themselves
        if batch != global_batch_size(config, world_size):
            yield differs(
                config,
                f"steps have {batch} sequences, and now would have "
                f"{global_batch_size(config, world_size)}",
                f"training.global_batch_size = {batch}",
            )
    if "dataloader" not in config.checkpoint.exclude_from_loading:
        yield from data_mistakes(config, data, before["config"])
    yield from validation_mistakes(config, before.get("validation_data"), before["config"])
    apart = before["config"].get("data", {}).get("document_attention", False)
    if apart != config.data.document_attention:
        did = "attended within documents" if apart else "attended across documents"
        yield differs(config, f"student {did}", f"data.document_attention = {str(apart).lower()}")
    if plan is None:
        return
    other_kind = [
        *kind_mistakes(config, let_plan, plan),
        *(method_mistakes(config, before["config"]) if let_plan and plan.pairs else ()),
    ]
    yield from other_kind
    if plan.pairs and not other_kind:
        yield from s_stop_mistakes(config, let_plan, plan)
        yield from pair_mistakes(config, let_plan, plan)
        yield from teacher_phase_mistakes(config, before["config"])


def seed_mistakes(config: LetJobConfig, before: dict[str, Any]) -> Mistakes:
    """The seed drew the initial weights: under another one a trajectory would count as two."""
    seed = before.get("debug", {}).get("seed")
    if seed == config.debug.seed:
        return
    if seed is None:
        yield differs(config, "weights were drawn without a seed", "no debug.seed")
    else:
        yield differs(config, f"seed was {seed}", f"debug.seed = {seed}")


def kind_mistakes(config: LetJobConfig, before: dict[str, Any] | None, plan: LetPlan) -> Mistakes:
    """A baseline has no teacher in any step, and a run with one keeps it until s_stop.

    From s_stop on a run is its baseline's like, and one may branch off there.
    """
    step, s_stop = resume_step(config), before["s_stop"] if before and before.get("pairs") else 0
    start = f"The run in {config.job.dump_folder!r} goes on from step {step}"
    if plan.pairs and not s_stop:
        yield ConfigError(
            f"{start}, and it was a baseline until there, while this config has a teacher: "
            "choose another job.dump_folder."
        )
    elif s_stop > step and not plan.pairs:
        yield ConfigError(
            f"{start}, and it has a teacher until step {s_stop}, while this config is a "
            "baseline's, without one: start the run with its own config, or choose another "
            "job.dump_folder."
        )


def method_mistakes(config: LetJobConfig, before: dict[str, Any]) -> Mistakes:
    """LET, RKD and SALT have their steps and pairs by other keys, none of which cures this.

    Args:
        config: of a run that has a teacher.
        before: the config that the run had, with a teacher, too.
    """
    was = before.get("distill", {}).get("method", "none")
    if was != config.distill.method:
        name, let = ("LET", "true") if was == "none" else (was.upper(), "false")
        cure = f'distill.method = "{was}" and let.enable = {let}'
        yield differs(config, f"method was {name}", cure)


def teacher_phase_mistakes(config: LetJobConfig, before: dict[str, Any]) -> Mistakes:
    """What the steps with a teacher were and left in the checkpoints.

    Args:
        config: of a run that has a teacher.
        before: the config that the run had, in which keys of today may be missing.
    """
    let, teacher = before.get("let", {}), before.get("teacher", {})
    name = teacher.get("checkpoint", config.teacher.checkpoint)
    if Path(name).name != Path(config.teacher.checkpoint).name:  # the same one may have moved
        yield differs(config, f"teacher was {name!r}", f"teacher.checkpoint = {name!r}")
    revision = teacher.get("revision", "")
    if revision != config.teacher.revision:
        did, cure = f"teacher was its revision {revision!r}", f"teacher.revision = {revision!r}"
        yield differs(config, did, cure)
    stopped = let.get("auto_stop", False)
    if config.let.auto_stop != stopped:
        did = "by auto stop" if stopped else "without auto stop"
        yield differs(config, f"s_stop was found {did}", f"let.auto_stop = {str(stopped).lower()}")
    drawn = before.get("distill", {}).get("select_of", 1)
    if config.distill.select_of != drawn:
        did = f"steps drew {drawn} times their data"
        yield differs(config, did, f"distill.select_of = {drawn}")
    read = teacher.get("tokenizer", "same")
    if config.teacher.tokenizer != read:
        did = "the student's" if read == "same" else "its own"
        yield differs(config, f"teacher's tokenizer was {did}", f'teacher.tokenizer = "{read}"')
    width_map = let.get("width_map", "interpolate")
    if config.let.width_map in {*IN_CHECKPOINTS} - {width_map}:
        kept = IN_CHECKPOINTS[config.let.width_map]
        yield differs(config, f"checkpoints hold no {kept} map", f"let.width_map = {width_map!r}")
    loss = let.get("loss", "cosine")
    if config.let.loss == "cca" != loss:
        yield differs(config, "checkpoints hold no covariances", f"let.loss = {loss!r}")
    norm = let.get("teacher_norm", "none")
    if config.let.teacher_norm not in (norm, "none"):
        has = "no moments" if norm == "none" else "other moments"
        yield differs(config, f"checkpoints hold {has}", f"let.teacher_norm = {norm!r}")


def pair_mistakes(config: LetJobConfig, before: dict[str, Any] | None, plan: LetPlan) -> Mistakes:
    """What a checkpoint holds of a pair's states belongs to these layers; weights may change."""
    if not before or not before.get("pairs"):
        return
    known = [f"{pair['layer']}:{pair['block']}" for pair in before["pairs"]]
    if known != [f"{pair.layer}:{pair.block}" for pair in plan.pairs]:
        layer, _, block = known[0].partition(":")
        cure = f"let.k = {block} and teacher.layer = {layer}"
        if len(known) > 1:
            cure = f"let.pairs = {known}"
        yield differs(config, f"pairs (teacher's layer:block) were {', '.join(known)}", cure)


def s_stop_mistakes(config: LetJobConfig, before: dict[str, Any] | None, plan: LetPlan) -> Mistakes:
    """A run that goes on keeps its s_stop: a fraction of more steps would call the teacher back."""
    if before is None:
        return
    planned = before.get("horizon") or before["s_stop"]  # auto stop may have moved it
    if planned == plan.s_stop:
        return
    if config.distill.method == "rkd":
        return  # its teacher stays to the end, wherever that is
    key = "let.s_stop" if config.distill.method == "none" else "distill.n_kd"
    yield ConfigError(
        f"This run's s_stop was {planned} and would become {plan.s_stop}: pass "
        f"--{key} {planned} to go on with it, or choose another job.dump_folder."
    )
