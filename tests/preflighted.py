"""Configs that are preflighted, and what the profiler finds of a step beside them."""

import itertools

from torch.profiler import ProfilerActivity, profile

from let_titan.preflight.gpus import GPUS
from tests.support import Lab, write_toml

A100 = GPUS["a100"]


def with_teacher(lab: Lab, layout):
    """Returns (let, keys) of a run in ``layout``: distilled, if it says so, or aligned."""
    if "distill__method" not in layout:
        return {}, layout
    teacher = {"teacher__checkpoint": str(lab.assets / "teacher"), "teacher__dtype": "float32"}
    return None, {**teacher, **layout}


def write(lab: Lab, let=None, **changes) -> list[str]:
    path = write_toml(lab.folder / "preflight.toml", lab.sections(let, **changes))
    return ["--job.config_file", str(path)]


def recorded() -> profile:
    return profile(activities=[ProfilerActivity.CPU], profile_memory=True)


def most_allocated(record: profile) -> int:
    """The peak of the CPU allocator's own record, over what there was at its beginning."""
    events = record.profiler.kineto_results.events()
    moves = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    return max(itertools.accumulate(n_bytes for _, n_bytes in moves))


METHODS = ("baseline", "let", "rkd")


def keys_of(method, lab):
    """Returns (let, keys) of a run by ``method``."""
    distilled = {"distill__method": "rkd"} if method == "rkd" else {}
    return (None, {}) if method == "baseline" else with_teacher(lab, distilled)
