"""Runs that differ by their seed alone are one arm; arms meet their baseline seed by seed."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from let_titan.runs import Run

BOOKKEEPING = ("job", "metrics", "checkpoint", "profiling", "comm")
"""Sections of a config that say where a run is written, not what is trained."""

PLACES = ("model.hf_assets_path", "training.dataset_path", "validation.dataset_path")
"""Where files lie on one machine; what they hold is compared by fingerprint."""

SEED = "debug.seed"


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


def setting(run: Run) -> dict[str, Any]:
    """Returns {"section.key": value} of a run's config: what decides it, but for the seed."""
    flat = flatten(run.summary["config"])
    return {
        key: value
        for key, value in flat.items()
        if key not in (SEED, *PLACES)
        and key.partition(".")[0] not in BOOKKEEPING
        and not is_idle(key, flat)
    }


def is_idle(key: str, config: Mapping[str, Any]) -> bool:
    """Whether a run has no use for the key: a setting of a loss that is not its own."""
    return key.startswith("let.cca_") and config.get("let.loss") != "cca"


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
        same = (g for g in groups if not differing([setting(g[0]), setting(run)]))
        home = next(same, None)
        if home is None:
            groups.append([run])
        else:
            home.append(run)
    names = [common_name(runs) for runs in groups]
    if len(groups) == 1 and groups[0][0].summary["let_plan"]:
        names = ["LET"]
    elif len(set(names)) < len(names):
        keys = differing([setting(runs[0]) for runs in groups])
        names = [", ".join(f"{key}={setting(runs[0]).get(key)}" for key in keys) for runs in groups]
    return [Arm(name, runs) for name, runs in zip(names, groups, strict=True)]


def common_name(runs: Sequence[Run]) -> str:
    """Returns the first run's name without "-seed3"; or without "-3" where the names differ."""
    first = runs[0].name
    alike = all(run.name == first for run in runs)
    return (
        re.sub(r"[-_.]?seed[-_.]?\d+$" if alike else r"[-_.]?(seed)?[-_.]?\d+$", "", first) or first
    )


def baseline_arm(runs: Sequence[Run]) -> Arm:
    """Returns the baseline's runs as one arm.

    Raises:
        ValueError: they differ in more than the seed, or are no baseline.
    """
    for run in runs:
        refuse_taught(run)
    arms = group(runs)
    if len(arms) > 1:
        first, other = arms[0].config, arms[1].config
        key = differing([first, other])[0]
        raise ValueError(
            f"The baseline's runs differ in {key} ({first.get(key)!r} against {other.get(key)!r}): "
            "give runs that differ in debug.seed alone after --baseline."
        )
    return Arm("baseline", list(runs))


def refuse_taught(run: Run) -> None:
    """Refuses a run without a plan of LET, a baseline by its summary, that had a teacher before.

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
