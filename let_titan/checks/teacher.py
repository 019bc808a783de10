"""[teacher]: there, a causal language model, and of the student's tokenizer."""

import json
import math
from contextlib import suppress
from pathlib import Path

from torchtitan.tools.logging import logger

from let_titan.checks.align import teacher_tokenizer_mistakes
from let_titan.checks.checkpoint import resume_step
from let_titan.checks.float8 import float8_teacher_mistakes
from let_titan.checks.mistakes import Mistakes, raised_by
from let_titan.config import LetJobConfig, distills
from let_titan.errors import ConfigError
from let_titan.plan import LetPlan
from let_titan.teacher import check_part, check_teacher, check_weights, read_tokenizer
from let_titan.teacher.sources import looks_like_a_path
from let_titan.tokenizer.build import embedding_size, load_tokenizer
from let_titan.tokenizer.match import Reading, check_same_tokenizer
from let_titan.tokenizer.tiktoken_files import is_tiktoken


def needs_teacher(config: LetJobConfig, plan: LetPlan | None) -> bool:
    """Whether the run will load a teacher; without a plan, whether it names one."""
    if plan is None:
        wanted = config.let.enable or distills(config)
        return wanted and bool(config.teacher.checkpoint)
    return bool(plan.pairs) and resume_step(config) < min(plan.s_stop, auto_stopped_at(config))


def auto_stopped_at(config: LetJobConfig) -> float:
    """Returns the step at which auto stop has ended the run's alignment, infinity if it has not."""
    path = Path(config.job.dump_folder) / "summary.json"
    if not config.let.auto_stop or not path.exists():
        return math.inf
    with suppress(ValueError, KeyError, TypeError):  # resume.py reports a damaged file
        plan = json.loads(path.read_text())["let_plan"]
        return int(plan["s_stop"]) if plan["horizon"] else math.inf
    return math.inf


def teacher_mistakes(config: LetJobConfig, plan: LetPlan | None) -> Mistakes:
    teacher = config.teacher
    student = load_tokenizer(config.model.hf_assets_path)
    pairs = plan.pairs if plan is not None else ()
    same = teacher.tokenizer == "same"
    unfit = list(
        raised_by(
            check_teacher,
            teacher.checkpoint,
            config.training.seq_len if same else 0,  # else its rows are cut where its context ends
            [pair.layer for pair in pairs if isinstance(pair.layer, int)],
            embedding_size(student) if same else 0,
            teacher.trust_remote_code,
            teacher.revision,
        )
    )
    yield from unfit
    if teacher.revision and (
        looks_like_a_path(teacher.checkpoint) or Path(teacher.checkpoint).exists()
    ):
        yield ConfigError(
            f"teacher.revision = {teacher.revision!r} is of a hub id, and teacher.checkpoint = "
            f"{teacher.checkpoint!r} is a path: leave one of them out."
        )
    damaged = list(raised_by(check_weights, teacher.checkpoint))
    yield from damaged
    if not unfit and not damaged:
        yield from part_mistakes(config, plan)
    if not same:
        yield from [] if unfit else teacher_tokenizer_mistakes(config)
        return
    path = config.model.hf_assets_path
    if unfit or Path(teacher.checkpoint).expanduser() == Path(path).expanduser():
        return
    theirs = read_tokenizer(*teacher.source)
    if theirs is None:
        logger.warning(f"{teacher.checkpoint} brings no tokenizer to compare the student's with.")
        return
    ours = Reading(student.tokenizer, student.bos_id, student.eos_id, not is_tiktoken(path))
    yield from raised_by(check_same_tokenizer, ours, theirs)


def part_mistakes(config: LetJobConfig, plan: LetPlan | None) -> Mistakes:
    """Whether the part that the run needs, without a plan the whole, can be built and filled."""
    teacher = config.teacher
    unbuilt = list(
        raised_by(
            check_part,
            teacher.checkpoint,
            [pair.layer for pair in plan.pairs] if plan is not None else ["last"],
            config.data.document_attention,
            distills(config),
            teacher.trust_remote_code,
            teacher.revision,
        )
    )
    yield from unbuilt
    if not unbuilt and plan is not None:
        yield from float8_teacher_mistakes(config, plan)
