"""A run that resumes: the checkpoint is there, and student, tokenizer and batch are the same.

More steps or another learning rate are allowed. What the run was is read from its summary.json;
its data, its validation and its teacher are compared in the modules ``resumed_*``.
"""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from let_titan.checkpoint.folders import METADATA, torn_checkpoints, whole_checkpoints
from let_titan.checks.checkpoint import checkpoint_folder, differs, resume_step
from let_titan.checks.contents import content_mistakes, goes_on, hf_mistakes
from let_titan.checks.folders import shared_with
from let_titan.checks.layout import global_batch_size
from let_titan.checks.mistakes import Mistakes
from let_titan.checks.resumed_data import resumed_data_mistakes
from let_titan.checks.resumed_teacher import resumed_teacher_mistakes
from let_titan.checks.resumed_validation import resumed_validation_mistakes
from let_titan.config import LetJobConfig
from let_titan.errors import ConfigError
from let_titan.plan import LetPlan
from let_titan.runs import EVALUATIONS, is_complete, read_lines
from let_titan.student.flavors import FLAVORS
from let_titan.tokenizer.build import fingerprint, load_tokenizer


def resume_mistakes(config: LetJobConfig, plan: LetPlan | None, world_size: int) -> Mistakes:
    """Checks what the run would load, and that it is the run that left it.

    Args:
        config: as parsed.
        plan: None where the config's own mistakes leave none.
        world_size: the number of processes.
    """
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
    """A checkpoint that the config names must be there, and one to start from must be used."""
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
    shared = shared_with(config) if initial else None
    # Torn ones are removed at the start, and with them a folder that held nothing else.
    if shared:
        yield ConfigError(
            f"The initial checkpoint would not be loaded, since checkpoint.folder = "
            f"{checkpoint.folder!r} holds {shared}, too, and so exists before it is asked for: "
            "give the checkpoints a folder of their own."
        )
    elif initial and folder.exists() and set(folder.iterdir()) - set(torn_checkpoints(folder)):
        yield ConfigError(
            f"The initial checkpoint would not be loaded, since {str(folder)!r} exists, though it "
            "holds none: remove that folder."
        )
    yield from initial_mistakes(config)


def past_the_end(config: LetJobConfig, step: int) -> ConfigError:
    """training.steps was lowered below what was trained: the run would end at once, as if done."""
    steps = config.training.steps
    earlier = [found for found in whole_checkpoints(checkpoint_folder(config)) if found <= steps]
    back = f", or checkpoint.load_step = {earlier[-1]} to go back" if earlier else ""
    return ConfigError(
        f"The run in {config.job.dump_folder!r} goes on from step {step}, which is past "
        f"training.steps = {steps}: set {step} or more{back}, or choose another job.dump_folder."
    )


def is_over(config: LetJobConfig) -> bool:
    """Whether the run is complete and its last checkpoint holds weights alone: nothing can follow.

    A run that ended in a full checkpoint is loaded as usual, and may be extended.
    """
    checkpoint, steps = config.checkpoint, config.training.steps
    if not checkpoint.enable or checkpoint.create_seed_checkpoint or resume_step(config) != steps:
        return False
    last = whole_checkpoints(checkpoint_folder(config)).get(steps)
    if last is None:
        return False
    try:
        return is_complete(Path(config.job.dump_folder)) and not goes_on(last)
    except (ValueError, KeyError, TypeError):  # other checks report what is damaged
        return False


def initial_mistakes(config: LetJobConfig) -> Mistakes:
    checkpoint = config.checkpoint
    if checkpoint.initial_load_in_hf:
        given = checkpoint.initial_load_path
        key = "checkpoint.initial_load_path" if given else "model.hf_assets_path"
        folder = Path(given or config.model.hf_assets_path)
        if not any(folder.glob("*.safetensors")):
            yield ConfigError(
                f"{key} = {str(folder)!r} holds no *.safetensors to start from: give a folder that "
                "does, or leave checkpoint.initial_load_in_hf out."
            )
        else:
            yield from hf_mistakes(folder, key)
    elif checkpoint.initial_load_path is not None:
        folder = Path(checkpoint.initial_load_path)
        if not (folder / METADATA).exists():
            yield ConfigError(
                f"checkpoint.initial_load_path = {str(folder)!r} is no checkpoint (it has no "
                ".metadata): give the folder of one step, such as .../checkpoint/step-100."
            )


def line_mistakes(dump: Path) -> Mistakes:
    """The files that the resume will cut must be readable; a kill may have torn the last line."""
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
            f"{str(path)!r} is damaged or of another program: {way_without_summary(config)}, or "
            "choose another job.dump_folder."
        )
        return
    if flavor != config.model.flavor:
        yield differs(config, f"student is a {flavor!r}", f"model.flavor = {flavor!r}")
    elif flavor in FLAVORS:
        yield from architecture_mistakes(config, before.get("architecture"))
    theta = before["config"]["model"].get("rope_theta", 10_000.0)
    if theta != config.model.rope_theta:
        yield differs(config, f"student's RoPE has theta {theta}", f"model.rope_theta = {theta}")
    yield from seed_mistakes(config, before["config"])
    if tokenizer != fingerprint(load_tokenizer(config.model.hf_assets_path)):
        folder = before["tokenizer"].get("path")
        yield differs(config, "tokenizer is another one", f"model.hf_assets_path = {folder!r}")
    yield from batch_mistakes(config, batch, world_size)
    if "dataloader" not in config.checkpoint.exclude_from_loading:
        starts = before.get("starts", [])
        yield from resumed_data_mistakes(config, data, before["config"], starts)
    yield from resumed_validation_mistakes(config, before.get("validation_data"), before["config"])
    apart = before["config"].get("data", {}).get("document_attention", False)
    if apart != config.data.document_attention:
        did = "attended within documents" if apart else "attended across documents"
        yield differs(config, f"student {did}", f"data.document_attention = {str(apart).lower()}")
    if plan is not None:
        yield from resumed_teacher_mistakes(config, plan, let_plan, before["config"])


def architecture_mistakes(config: LetJobConfig, before: dict[str, Any] | None) -> Mistakes:
    """A user's module may have changed what its flavor is; earlier versions only named it."""
    flavor = config.model.flavor
    now = FLAVORS[flavor].architecture()
    for name, value in (before or {}).items():
        if value != now.get(name):
            what = f"student had {name} = {value}, where {flavor!r} now has {now.get(name)}"
            yield differs(config, what, "the flavor to what it was")


def way_without_summary(config: LetJobConfig) -> str:
    """Returns the cure.

    Nothing can follow a last checkpoint that holds the model alone, and without its summary the run
    no longer counts as complete.
    """
    last = whole_checkpoints(checkpoint_folder(config)).get(resume_step(config))
    with suppress(ValueError):  # its .metadata is damaged, which the contents' check tells
        if last is not None and not goes_on(last):
            older = "go on from an older step by checkpoint.load_step"
            return f"restore it, or move it away and {older}"
    return "move it away to go on from the checkpoint"


def batch_mistakes(config: LetJobConfig, before: int, world_size: int) -> Mistakes:
    """Steps keep their number of sequences, ``before``, whatever the number of processes."""
    try:
        now = global_batch_size(config, world_size)
    except ConfigError:  # the checks of the layout tell it
        return
    if now != before:
        what = f"steps have {before} sequences, and now would have {now}"
        yield differs(config, what, f"training.global_batch_size = {before}")


def seed_mistakes(config: LetJobConfig, before: dict[str, Any]) -> Mistakes:
    """The seed drew the initial weights: were it changed, one trajectory would count as two."""
    seed = before.get("debug", {}).get("seed")
    if seed == config.debug.seed:
        return
    if seed is None:
        yield differs(config, "weights were drawn without a seed", "no debug.seed")
    else:
        yield differs(config, f"seed was {seed}", f"debug.seed = {seed}")
