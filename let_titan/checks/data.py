"""[training] and [validation]: data sets that can be opened, and how much of them is read."""

from pathlib import Path

from torchtitan.config.job_config import Validation
from torchtitan.hf_datasets.text_datasets import DATASETS

from let_titan.build_data import check_dataset
from let_titan.checks.mistakes import Mistakes, raised_by
from let_titan.config import LetJobConfig, Training
from let_titan.data.files import PILE
from let_titan.errors import ConfigError, NotFoundHere
from let_titan.teacher import hub
from let_titan.teacher.sources import looks_like_a_path

OF_THE_HUB = ("c4", "c4_test", "c4_validation")
"""torchtitan's own data sets, which are folders. What a user has registered may be a file."""


def data_mistakes(config: LetJobConfig) -> Mistakes:
    training, validation = config.training, config.validation
    yield from dataset_mistakes(config, training, "training")
    yield from document_mistakes(config)
    if not validation.enable:
        return
    yield from dataset_mistakes(config, validation, "validation")
    if validation.seq_len > training.seq_len:
        yield ConfigError(
            f"validation.seq_len = {validation.seq_len} must not be longer than "
            f"training.seq_len = {training.seq_len}, for which the student has positions."
        )
    if validation.steps < 1:
        yield ConfigError(
            f"validation.steps = {validation.steps} must be at least 1: so many batches of "
            "validation.local_batch_size sequences make the validation set."
        )


def dataset_mistakes(config: LetJobConfig, part: Training | Validation, section: str) -> Mistakes:
    name, path = part.dataset, part.dataset_path
    unknown = list(raised_by(check_dataset, name, path, section, config.data))
    yield from unknown
    if unknown or name == PILE:
        return
    source = path or DATASETS[name].path
    here = Path(source).is_dir() or (name not in OF_THE_HUB and Path(source).exists())
    if not here and (looks_like_a_path(source) or not hub.answers()):
        yield NotFoundHere(
            f"{section}.dataset = {name!r} is read from {source!r}, which is no folder here and "
            f"no data set of a hub within reach: give {section}.dataset_path, or local files with "
            f'{section}.dataset = "{PILE}".'
        )


def document_mistakes(config: LetJobConfig) -> Mistakes:
    """Whether every part of the run can keep the documents of a sequence apart, if asked to."""
    if not config.data.document_attention:
        return
    parts = {"training": config.training, "validation": config.validation}
    for section, part in parts.items():
        if part.dataset != PILE and (section == "training" or config.validation.enable):
            yield ConfigError(
                f"data.document_attention = true needs {section}.dataset = {PILE!r}, whose loader "
                f"knows where documents begin, not {part.dataset!r}: change it, or leave the key "
                "out."
            )
    for key in ("tensor", "pipeline", "context"):
        degree = getattr(config.parallelism, f"{key}_parallel_degree")
        if degree > 1:
            yield ConfigError(
                f"data.document_attention = true cannot be used with parallelism.{key}_parallel_"
                f"degree = {degree}: set that to 1 and shard with FSDP2."
            )
    if config.let.enable and config.teacher.trust_remote_code:
        yield ConfigError(
            "data.document_attention = true cannot be used with teacher.trust_remote_code = true, "
            "whose code may not keep documents apart: leave one of them out."
        )
