"""Runs that differ by their seed alone are one arm; arms meet their baseline seed by seed."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from let_titan.runs import Run

BOOKKEEPING = ("job", "metrics", "checkpoint", "profiling", "comm")
"""Sections of a config that say where a run is written, not what is trained."""

LOADED: dict[str, Any] = {
    "checkpoint.initial_load_path": None,
    "checkpoint.initial_load_in_hf": False,
    "checkpoint.initial_load_in_hf_quantized": False,
    "checkpoint.initial_load_model_only": True,
    "checkpoint.exclude_from_loading": [],
}
"""Keys of [checkpoint] that decide what a run loads, with their defaults. Loaded weights count by
their path alone."""

PLACES = ("model.hf_assets_path", "training.dataset_path", "validation.dataset_path")
"""Where files lie on one machine; what they hold is compared by fingerprint."""

ASIDE = ("teacher.cache", "let.diagnostics_freq")
"""Keys that change a run's cost or log, not what it trains: seeds of one arm may differ in them."""

TEACHER = "teacher.checkpoint"
SEED = "debug.seed"
BASELINE = "baseline"
"""The name of one side of every comparison, and of nothing else."""


@dataclass(frozen=True)
class Arm:
    """One setting and its seeds."""

    name: str
    runs: list[Run]

    @property
    def seeds(self) -> list[Any]:
        return [run.fact(f"config.{SEED}") for run in self.runs]

    @property
    def config(self) -> dict[str, Any]:
        """What was set, flat, without the seed and the bookkeeping."""
        return setting(self.runs[0])

    @property
    def has_teacher(self) -> bool:
        return bool(self.runs[0].summary["let_plan"])

    @property
    def is_distilled(self) -> bool:
        """Whether the teacher gives logits, as in RKD and SALT, and not LET's states."""
        return is_distilled(self.runs[0])

    @property
    def stops(self) -> tuple[int, ...]:
        """The last steps with a teacher: one of all seeds, or those that auto stop found."""
        runs = self.runs if self.has_teacher else []
        return tuple(sorted({run.fact("let_plan.s_stop") for run in runs}))


def setting(run: Run) -> dict[str, Any]:
    """Returns {"section.key": value} of a run's config: what decides it, but for the seed."""
    flat = flatten(run.summary["config"])
    return {
        key: value
        for key, value in flat.items()
        if key != SEED
        and is_of_training(key)
        and not (is_place(key, flat) or is_idle(key, flat) or loads_nothing(key, flat))
    }


def identity(run: Run) -> dict[str, Any]:
    """Returns what the seeds of one arm have in common.

    That is their ``setting`` without what is exported or looked at beside the training. A teacher
    is the same one wherever it lies: its name and its number of parameters stand for its path.
    """
    found = {
        key: value
        for key, value in setting(run).items()
        if key not in ASIDE and not key.startswith("export.")
    }
    if found.get(TEACHER):
        found[TEACHER] = (Path(found[TEACHER]).name, run.fact("teacher.parameters"))
    return found


def is_of_training(key: str) -> bool:
    """Whether a key says what is trained, and not where the run is written."""
    return key in LOADED or key.partition(".")[0] not in BOOKKEEPING


def is_place(key: str, config: Mapping[str, Any]) -> bool:
    """Whether a key is of ``PLACES``; the tokenizer's is not where the first weights lie there."""
    if key == "model.hf_assets_path" and config.get("checkpoint.initial_load_in_hf"):
        return bool(config.get("checkpoint.initial_load_path"))
    return key in PLACES


def is_idle(key: str, config: Mapping[str, Any]) -> bool:
    """Whether a run ignores the key: it belongs to a loss that the run does not have."""
    return key.startswith("let.cca_") and config.get("let.loss") != "cca"


def loads_nothing(key: str, config: Mapping[str, Any]) -> bool:
    """Whether a key of ``LOADED`` is at its default, or checkpoints are off."""
    is_off = config.get("checkpoint.enable") is False
    return key in LOADED and (is_off or config[key] == LOADED[key])


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def differing(configs: Sequence[dict[str, Any]]) -> list[str]:
    """Returns the keys that do not have one value in all ``configs``."""
    keys = dict.fromkeys(key for config in configs for key in config)
    first = configs[0]
    return [key for key in keys if any(c.get(key) != first.get(key) for c in configs[1:])]


def group(runs: Sequence[Run]) -> list[Arm]:
    """Sorts runs into arms, in the order of their first runs, each under a name of its own."""
    groups: list[list[Run]] = []
    for run in runs:
        same = (g for g in groups if not differing([identity(g[0]), identity(run)]))
        home = next(same, None)
        if home is None:
            groups.append([run])
        else:
            home.append(run)
    names = [common_name(runs) for runs in groups]
    if len(groups) == 1 and groups[0][0].summary["let_plan"] and not is_distilled(groups[0][0]):
        names = ["LET"]
    elif len(set(names)) < len(names):
        names = names_by_setting([runs[0] for runs in groups])
    return [Arm(name, runs) for name, runs in zip(names, groups, strict=True)]


def is_distilled(run: Run) -> bool:
    return run.fact("config.distill.method") not in (None, "none")


def names_by_setting(firsts: Sequence[Run]) -> list[str]:
    """Returns "key=value, ..." of what sets each apart: the first run of every arm."""
    keys = differing([identity(run) for run in firsts])
    plain, exact = (
        [", ".join(f"{key}={facts(run).get(key)}" for key in keys) for run in firsts]
        for facts in (setting, identity)
    )
    # Teachers of one path may differ in size alone, which only their identities tell.
    return plain if len(set(plain)) == len(plain) else exact


def common_name(runs: Sequence[Run]) -> str:
    """Returns the first run's name without "-seed3"; or without "-3" where the names differ.

    A run may be called "baseline", too: in a report it would take the place of the real one.
    """
    first = runs[0].name
    alike = all(run.name == first for run in runs)
    ending = r"[-_.]?seed[-_.]?\d+$" if alike else r"[-_.]?(seed)?[-_.]?\d+$"
    name = re.sub(ending, "", first) or first
    return f"{name} (run)" if name == BASELINE else name


def baseline_arm(runs: Sequence[Run]) -> Arm:
    """Returns the baseline's runs as one arm.

    Raises:
        ValueError: they differ in more than the seed, or are no baseline.
    """
    for run in runs:
        refuse_taught(run)
    arms = group(runs)
    if len(arms) > 1:
        first, other = (identity(arm.runs[0]) for arm in arms[:2])
        key = differing([first, other])[0]
        raise ValueError(
            f"The baseline's runs differ in {key} ({first.get(key)!r} against {other.get(key)!r}): "
            "give runs that differ in debug.seed alone after --baseline."
        )
    return Arm(BASELINE, list(runs))


def refuse_doubles(arm: Arm) -> None:
    """Refuses an arm that has a seed twice, which an interval over seeds would count as two.

    Runs without a seed each draw one of their own.

    Raises:
        ValueError: names two of the runs.
    """
    known: dict[Any, Run] = {}
    for seed, run in zip(arm.seeds, arm.runs, strict=True):
        if seed is not None and seed in known:
            raise ValueError(
                f"{known[seed].name} and {run.name} of {arm.name} have one setting and one "
                f"debug.seed, {seed}, and are no two seeds: leave one of them out."
            )
        known[seed] = run


def refuse_taught(run: Run) -> None:
    """Refuses a run that its summary calls a baseline, but that had a teacher before.

    Raises:
        ValueError: names the last of those steps.
    """
    taught = [line["step"] for line in run.train if line.get("teacher_active")]
    if taught and not run.summary["let_plan"]:
        raise ValueError(
            f"{run.name} ended as a baseline, but had a teacher until step {taught[-1]}: give a "
            "run after --baseline that had none from its first step on."
        )


def pair(arm: Arm, baseline: Arm) -> list[tuple[Run, Run]] | None:
    """Returns (run, baseline run) of equal seeds; None unless every run finds one partner."""
    ours = dict(zip(arm.seeds, arm.runs, strict=True))
    theirs = dict(zip(baseline.seeds, baseline.runs, strict=True))
    repeated = len(ours) < len(arm.runs) or len(theirs) < len(baseline.runs)
    if repeated or ours.keys() != theirs.keys():
        return None
    return [(run, theirs[seed]) for seed, run in ours.items()]
