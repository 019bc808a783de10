"""``teacher.tokenizer = "align"``: what the loader needs to tokenize for the teacher, too."""

from let_titan.checks.layout import global_batch_size, started_processes
from let_titan.checks.teacher import needs_teacher
from let_titan.config import LetJobConfig
from let_titan.data.teacher_text import TeacherText
from let_titan.plan import resolve_plan
from let_titan.teacher import read_encoder
from let_titan.teacher.sources import read_config
from let_titan.tokenizer.build import RunTokenizer, encoder_of


def teacher_text_of_run(config: LetJobConfig, tokenizer: RunTokenizer) -> TeacherText | None:
    """Returns what the loader needs; None where the teacher shares the ids, or has left."""
    plan = resolve_plan(config)
    if config.teacher.tokenizer == "same" or not needs_teacher(config, plan):
        return None
    return teacher_text(
        config, tokenizer, plan.s_stop * global_batch_size(config, started_processes())
    )


def teacher_text(config: LetJobConfig, tokenizer: RunTokenizer, until: int) -> TeacherText:
    """Reads the teacher's tokenizer, which the checks have found to be there.

    Args:
        config: the run's.
        tokenizer: the student's.
        until: sequences of the run that have a teacher.
    """
    teacher = config.teacher
    encoder = read_encoder(*teacher.source)
    assert encoder is not None
    facts = read_config(*teacher.source)
    return TeacherText(
        encoder_of(tokenizer),
        encoder,
        add_bos=config.data.add_bos,
        add_eos=config.data.add_eos,
        context=getattr(facts, "max_position_embeddings", None),
        until=until,
    )
