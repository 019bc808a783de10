"""A resumed run keeps its teacher, its method and its s_stop: checkpoints hold their state."""

from pathlib import Path
from typing import Any

from let_titan.checks.checkpoint import differs, resume_step
from let_titan.checks.mistakes import Mistakes
from let_titan.config import LetJobConfig, distills
from let_titan.errors import ConfigError
from let_titan.plan import LetPlan

IN_CHECKPOINTS = {
    "procrustes": "fitted",
    "linear": "learned linear",
    "orthogonal_learned": "learned orthogonal",
}
"""The values of let.width_map whose maps are part of a checkpoint, and what these are."""


def resumed_teacher_mistakes(
    config: LetJobConfig, plan: LetPlan, plan_before: dict[str, Any] | None, before: dict[str, Any]
) -> Mistakes:
    """Compares the teacher's phase with what it was when the checkpoint was saved.

    Args:
        config: of the resumed run.
        plan: its plan.
        plan_before: the plan in summary.json; None for a baseline.
        before: the config in summary.json, in which keys of today may be missing.
    """
    other_kind = list(kind_mistakes(config, plan_before, plan))
    if plan_before and plan.pairs:
        other_kind += method_mistakes(config, before)
    yield from other_kind
    if plan.pairs and not other_kind:
        yield from s_stop_mistakes(config, plan_before, plan)
        yield from resumed_pair_mistakes(config, plan_before, plan)
        yield from teacher_phase_mistakes(config, before)


def kind_mistakes(config: LetJobConfig, before: dict[str, Any] | None, plan: LetPlan) -> Mistakes:
    """A baseline has no teacher in any step, and a run with one keeps it until s_stop.

    From s_stop on both train alike, so that a baseline may branch off there.
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
    """LET, RKD and SALT cannot be exchanged: each sets its steps and pairs by keys of its own.

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
    """Keys that decided the steps with a teacher, or what these left in the checkpoints.

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
    if config.let.width_map in IN_CHECKPOINTS and config.let.width_map != width_map:
        kept = IN_CHECKPOINTS[config.let.width_map]
        yield differs(config, f"checkpoints hold no {kept} map", f"let.width_map = {width_map!r}")
    loss = let.get("loss", "cosine")
    if config.let.loss == "cca" and loss != "cca":
        yield differs(config, "checkpoints hold no covariances", f"let.loss = {loss!r}")
    norm = let.get("teacher_norm", "none")
    if config.let.teacher_norm not in (norm, "none"):
        has = "no moments" if norm == "none" else "other moments"
        yield differs(config, f"checkpoints hold {has}", f"let.teacher_norm = {norm!r}")


def resumed_pair_mistakes(
    config: LetJobConfig, before: dict[str, Any] | None, plan: LetPlan
) -> Mistakes:
    """Moments and maps in a checkpoint belong to these layers; the pairs' weights may change."""
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
    """A resumed run keeps its s_stop: raising training.steps would move one given as a fraction."""
    if before is None:
        return
    planned = before.get("horizon") or before["s_stop"]  # auto stop may have moved it
    if planned == plan.s_stop:
        return
    if config.distill.method == "rkd":
        return  # its teacher stays to the end, wherever that is
    key = "distill.n_kd" if distills(config) else "let.s_stop"
    yield ConfigError(
        f"This run's s_stop was {planned} and would become {plan.s_stop}: pass "
        f"--{key} {planned} to go on with it, or choose another job.dump_folder."
    )
