"""What two arms must share to be compared, and what to say where they do not."""

from collections.abc import Collection, Sequence
from itertools import groupby
from typing import Any

from let_titan.compare.arms import TEACHER, Arm, differing
from let_titan.runs import KIND, Run, stretches

STRICT = {
    "student": ("config.model.flavor", "parameters.total", "parameters.blocks"),
    "data": (
        "data.dataset",
        "data.sha256_of_names_and_sizes",
        "data.path",
        "config.training.seq_len",
        "tokenizer.sha256",
        "special_tokens",
    ),
    "tokens per step": ("tokens_per_step",),
    "validation": (
        "validation_data.dataset",
        "validation_data.sha256_of_names_and_sizes",
        "validation_data.path",
        "config.validation.seq_len",
        "validated sequences",
    ),
}
"""Without these a comparison of losses means nothing."""

CHANGES = "steps after which the hardware changed"

HARDWARE = (*(f"hardware.{key}" for key in KIND), "devices by start", CHANGES)
"""Without these a comparison of times means nothing; of each start, since a resume may change them.
"""

OVERRIDES = (*(name.replace(" ", "-") for name in STRICT), "hardware")
INTENDED = ("let", "distill", "teacher")


def fact(run: Run, path: str) -> Any:
    """As ``Run.fact``, and some facts that are made up of several.

    "validated sequences" is a product. The path of data is None where a hash of its files tells
    more. A fact of ``HARDWARE`` lists the values that a run was trained on in turn, each stretch of
    equal ones once; the kind of hardware is a single value where it never changed.
    """
    if path in HARDWARE:
        return hardware_fact(run, path)
    if path.endswith("data.path"):
        known = run.fact(path.replace(".path", ".sha256_of_names_and_sizes"))
        return None if known else run.fact(path)
    if path != "validated sequences":
        return run.fact(path)
    steps, rows = (run.fact(f"config.validation.{key}") for key in ("steps", "local_batch_size"))
    return None if None in (steps, rows) else steps * rows


def hardware_fact(run: Run, path: str) -> Any:
    """Returns a fact of ``HARDWARE``."""
    found = stretches(run.summary)
    if path == CHANGES:
        return [step for step, *_ in found[1:]]
    if path == "devices by start":
        return [size for size, _ in groupby(devices for _, devices, _ in found)]
    key = path.rpartition(".")[2]
    values = [value for value, _ in groupby(kind.get(key) for *_, kind in found)]
    return values if len(values) > 1 else values[0]


def unlike(runs: Sequence[Run], paths: Sequence[str]) -> list[str]:
    """Says where a run differs from the first one in ``paths``."""
    found = {}
    for path in paths:
        wanted = fact(runs[0], path)
        other = next((run for run in runs[1:] if fact(run, path) != wanted), None)
        if other is not None:
            found[path] = (
                f"{path} ({wanted} in {runs[0].name}, {fact(other, path)} in {other.name})"
            )
    return list(found.values())


def refuse_unlike(runs: Sequence[Run], allowed: Collection[str]) -> list[str]:
    """Refuses runs whose losses cannot be compared.

    Returns:
        The differences that ``allowed`` (of ``OVERRIDES``) lets pass, as sentences' parts.

    Raises:
        ValueError: a difference that was not allowed.
    """
    passed = []
    for area, paths in STRICT.items():
        found, flag = unlike(runs, paths), area.replace(" ", "-")
        if found and flag not in allowed:
            raise ValueError(
                f"The runs differ in {area}: {'; '.join(found)}. Repeat one of them, or compare "
                f"them all the same with --allow {flag}."
            )
        passed += found
    return passed


def untimed_because(runs: Sequence[Run], allowed: Collection[str]) -> str | None:
    """Says why times are not compared; None where they are."""
    found = unlike(runs, HARDWARE)
    if not found or "hardware" in allowed:
        return None
    return (
        f"times and memory are not compared, since the hardware differs: {'; '.join(found)} "
        "(--allow hardware compares them)"
    )


def config_table(arms: Sequence[Arm]) -> list[tuple[str, list[Any]]]:
    """Returns (key, values by arm) of all that was set differently."""
    configs = [in_force(arm) for arm in arms]
    return [(key, [config.get(key) for config in configs]) for key in differing(configs)]


def in_force(arm: Arm) -> dict[str, Any]:
    """Returns an arm's config without the sections that say nothing where there is no teacher."""
    return {
        key: value
        for key, value in arm.config.items()
        if arm.has_teacher or key.partition(".")[0] not in INTENDED
    }


def unintended(arms: Sequence[Arm]) -> list[str]:
    """Returns what else differs between arms: keys outside [let] and [teacher], versions, commits.

    Also the paths of a teacher that seeds of one arm read from several: only its name is compared.
    """
    keys = [key for key, _ in config_table(arms) if key.partition(".")[0] not in INTENDED]
    runs = [run for arm in arms for run in arm.runs]
    places = [said for arm in arms for said in unlike(arm.runs, (f"config.{TEACHER}",))]
    return keys + places + unlike(runs, ("versions", "git_commit"))
