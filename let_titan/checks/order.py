"""All checks in their order; those that make no sense after a mistake are left out."""

from let_titan.checks.checkpoint import checkpoint_mistakes, s_stop_mistakes
from let_titan.checks.data import data_mistakes
from let_titan.checks.layout import layout_mistakes, started_processes
from let_titan.checks.let import let_mistakes, pair_mistakes
from let_titan.checks.mistakes import Mistakes
from let_titan.checks.model import flavor_mistakes, model_mistakes, tokenizer_mistakes
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


def find_mistakes(config: LetJobConfig, world_size: int | None = None) -> list[ConfigError]:
    """Runs every check and returns every mistake, the one ``check_config`` raises first.

    Args:
        config: as parsed.
        world_size: the number of processes of the run; None: those that were started.
    """
    return list(mistakes_of(config, started_processes() if world_size is None else world_size))


def mistakes_of(config: LetJobConfig, world_size: int) -> Mistakes:
    """Yields mistakes as they are found, the cheap checks before those that read the teacher."""
    unknown_flavor = list(flavor_mistakes(config))
    no_tokenizer = list(tokenizer_mistakes(config))
    yield from unknown_flavor
    yield from model_mistakes(config)
    yield from no_tokenizer
    yield from layout_mistakes(config, world_size)
    yield from checkpoint_mistakes(config, world_size)
    yield from data_mistakes(config)
    unclear = list(let_mistakes(config))
    yield from unclear
    plan = None if unclear else resolve_plan(config)
    if plan is not None:
        if not unknown_flavor:
            yield from pair_mistakes(plan, config)
        yield from s_stop_mistakes(config, plan)
    if not no_tokenizer and needs_teacher(config, plan):
        yield from teacher_mistakes(config, plan)
