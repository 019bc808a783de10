"""All checks in their order; those that make no sense after a mistake are left out."""

from let_titan.checks.align import align_mistakes
from let_titan.checks.cache import cache_combination_mistakes, cache_mistakes
from let_titan.checks.checkpoint import checkpoint_mistakes
from let_titan.checks.choices import choice_mistakes
from let_titan.checks.combinations import combination_mistakes
from let_titan.checks.data import data_mistakes
from let_titan.checks.distill import distill_mistakes
from let_titan.checks.export import export_mistakes
from let_titan.checks.float8 import converter_mistakes
from let_titan.checks.folders import folder_mistakes
from let_titan.checks.imported import import_mistakes
from let_titan.checks.layout import layout_mistakes, started_processes
from let_titan.checks.let import let_mistakes, pair_mistakes
from let_titan.checks.machine import machine_mistakes
from let_titan.checks.mistakes import Mistakes, readable
from let_titan.checks.model import (
    flavor_mistakes,
    model_mistakes,
    recompute_mistakes,
    tokenizer_mistakes,
)
from let_titan.checks.ranges import range_mistakes
from let_titan.checks.resume import resume_mistakes
from let_titan.checks.teacher import needs_teacher, teacher_mistakes
from let_titan.config import LetJobConfig
from let_titan.errors import ConfigError
from let_titan.plan import LetPlan, resolve_plan


def check_config(config: LetJobConfig) -> LetPlan:
    """Checks a parsed config for the processes that were started and returns its plan.

    Raises:
        ConfigError: names the first mistake and its cure.
    """
    for mistake in mistakes_of(config, started_processes()):
        raise mistake
    return resolve_plan(config)


def find_mistakes(
    config: LetJobConfig, world_size: int | None = None, elsewhere: bool = False
) -> list[ConfigError]:
    """Runs every check and returns every mistake, the one ``check_config`` raises first.

    Args:
        config: as parsed.
        world_size: the number of processes of the run; None: those that were started.
        elsewhere: the run will be on another machine, so this one's GPU does not matter.
    """
    processes = started_processes() if world_size is None else world_size
    return list(mistakes_of(config, processes, elsewhere))


def mistakes_of(config: LetJobConfig, world_size: int, elsewhere: bool = False) -> Mistakes:
    """Yields mistakes as they are found, the cheap checks before those that read files."""
    yield from import_mistakes(config)
    unknown_flavor = list(flavor_mistakes(config))
    yield from unknown_flavor
    yield from model_mistakes(config)
    if not unknown_flavor:
        yield from recompute_mistakes(config)
    out_of_range = range_mistakes(config)
    yield from out_of_range.values()
    of_plan = {path for path in out_of_range if path.startswith(("let.", "distill."))}
    wrong = out_of_range.keys() - of_plan
    unknown_words = list(choice_mistakes(config))
    yield from unknown_words
    yield from converter_mistakes(config)
    if not elsewhere:
        yield from machine_mistakes(config)
    unclear = [*let_mistakes(config), *distill_mistakes(config)]
    yield from unclear
    plan = None if unclear or of_plan else resolve_plan(config)
    if plan is not None and not unknown_flavor:
        yield from pair_mistakes(plan, config)
    if not wrong and not unknown_words:
        yield from combination_mistakes(config)
        yield from align_mistakes(config)
        yield from cache_combination_mistakes(config)
    layout: list[ConfigError] = []
    if not any(path.startswith(("parallelism.", "training.")) for path in wrong):
        layout += layout_mistakes(config, world_size)
    yield from layout
    unreadable = list(readable(tokenizer_mistakes(config)))
    yield from unreadable
    no_data = list(readable(data_mistakes(config)))
    yield from no_data
    yield from readable(folder_mistakes(config))
    yield from readable(checkpoint_mistakes(config, world_size))
    yield from readable(export_mistakes(config))
    if unknown_flavor or wrong or unknown_words or unreadable:
        return
    if not no_data:
        yield from readable(resume_mistakes(config, plan, world_size))
    if needs_teacher(config, plan):
        unfit = list(readable(teacher_mistakes(config, plan)))
        yield from unfit
        if plan is not None and not (unfit or no_data or layout):
            yield from readable(cache_mistakes(config, world_size, elsewhere))
