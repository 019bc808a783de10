"""What is wrong with a config, what could be better, and what could not be checked here."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from let_titan.checks import find_mistakes
from let_titan.checks.float8 import FLOAT8_CAPABILITY, TEACHER, teacher_in_float8
from let_titan.checks.layout import ring_mistakes
from let_titan.checks.mistakes import Mistakes, raised_by
from let_titan.checks.teacher import needs_teacher
from let_titan.config import LetJobConfig
from let_titan.errors import ConfigError, NotFoundHere
from let_titan.plan import LetPlan, resolve_plan
from let_titan.preflight.gpus import Gpu
from let_titan.preflight.teacher import find_teacher
from let_titan.teacher.facts import TeacherFacts, facts_of, facts_of_folder
from let_titan.teacher.sources import check_fits
from let_titan.tokenizer.build import has_tokenizer, vocab_size


@dataclass
class Findings:
    """Sentences, each with its cure.

    Attributes:
        mistakes: a run would be refused, or fail.
        warnings: it would run, and probably not as meant.
        unchecked: what a run will be checked for that is not on this machine.
    """

    mistakes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)


def look(config: LetJobConfig, world_size: int, gpu: Gpu) -> Findings:
    """Makes every check that needs no model."""
    found = find_mistakes(config, world_size, elsewhere=True)
    wrong = [mistake for mistake in found if not isinstance(mistake, NotFoundHere)]
    wrong += [*gpu_mistakes(config, gpu), *shape_mistakes(config)]
    mistakes = list(dict.fromkeys(map(str, wrong)))  # some checks are made twice
    missing = [str(mistake) for mistake in found if isinstance(mistake, NotFoundHere)]
    missing += unread(config)
    return Findings(mistakes, unchecked=[text for text in missing if text not in mistakes])


def vocabulary_of(config: LetJobConfig) -> int:
    """Returns the student's vocabulary: its tokenizer's, or that which the facts know.

    Raises:
        ConfigError: neither is known.
    """
    folder = config.model.hf_assets_path
    if has_tokenizer(folder):
        return vocab_size(folder)
    facts = facts_of_tokenizer(config)
    if facts is None:
        raise ConfigError(
            f"model.hf_assets_path = {folder!r} holds no tokenizer and is not named after a model "
            "whose vocabulary is known: put the teacher's tokenizer there."
        )
    return facts.tokenizer_vocabulary


def facts_of_tokenizer(config: LetJobConfig) -> TeacherFacts | None:
    """Returns the facts of the model whose tokenizer the student has, where they are shipped."""
    shared = config.teacher.tokenizer == "same"
    teacher = facts_of(config.teacher.checkpoint) if shared else None
    return facts_of_folder(config.model.hf_assets_path) or teacher


def plan_of(config: LetJobConfig) -> LetPlan | None:
    """Returns the plan, None where let.pairs cannot be read."""
    try:
        return resolve_plan(config)
    except ConfigError:
        return None


def shape_mistakes(config: LetJobConfig) -> Mistakes:
    """Checks vocabulary and teacher again, by the shipped facts where nothing else is here."""
    unknown = list(raised_by(vocabulary_of, config))
    yield from unknown
    plan = plan_of(config)
    if not needs_teacher(config, plan):
        return
    unread = list(raised_by(find_teacher, config))
    yield from unread
    if unknown or unread:
        return
    pairs = plan.pairs if plan is not None else ()
    shared = config.teacher.tokenizer == "same"
    yield from raised_by(
        check_fits,
        find_teacher(config)[0],
        config.teacher.checkpoint,
        config.training.seq_len if shared else 0,
        [pair.layer for pair in pairs if isinstance(pair.layer, int)],
        vocabulary_of(config) if shared else 0,
    )


def gpu_mistakes(config: LetJobConfig, gpu: Gpu) -> Mistakes:
    """What a GPU cannot do. float8 may be emulated, too; the checks refuse to compile that."""
    yield from ring_mistakes(config)
    if config.quantize.linear.float8.emulate or gpu.capability >= FLOAT8_CAPABILITY:
        return
    have, need = (".".join(map(str, pair)) for pair in (gpu.capability, FLOAT8_CAPABILITY))
    for asked, key, wanted in (
        ("model.converters asks for float8, which", "model.converters", uses_float8(config)),
        (TEACHER, "teacher.float8", teacher_in_float8(config)),
    ):
        if wanted:
            yield ConfigError(
                f"{asked} needs CUDA capability {need}; {gpu.name} has {have}: take --gpu h100, or "
                f"leave float8 out of {key}."
            )


def uses_float8(config: LetJobConfig) -> bool:
    """Whether the student does."""
    return any("float8" in converter for converter in config.model.converters)


def unread(config: LetJobConfig) -> Iterator[str]:
    """Names what the facts stand in for."""
    folder, checkpoint = config.model.hf_assets_path, config.teacher.checkpoint
    here = has_tokenizer(folder)
    known = facts_of_tokenizer(config)
    if not here and known is not None:
        yield f"The vocabulary is taken to be {known.name}'s: {known.tokenizer_vocabulary:,} ids."
    if not needs_teacher(config, plan_of(config)):
        return
    facts = facts_of(checkpoint)
    by_facts = facts is not None and find_teacher(config)[1] == facts.source
    if by_facts:
        yield f"The teacher's shape is taken from the shipped facts of {checkpoint}."
    if by_facts or not here:
        asked = "compared" if config.teacher.tokenizer == "same" else "read"
        yield f"The tokenizers of {folder!r} and {checkpoint!r} were not {asked}."
