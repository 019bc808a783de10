"""What teacher.tokenizer = "align" costs, measured on a few of the run's own batches."""

from dataclasses import dataclass
from itertools import islice

import torch

from let_titan.build_data import build_dataloader
from let_titan.config import LetJobConfig
from let_titan.data.loader import PileLoader
from let_titan.errors import ConfigError
from let_titan.let.targets import Counts, count
from let_titan.let.teacher_tokenizer import teacher_text
from let_titan.teacher import read_tokenizer
from let_titan.teacher.attention import takes_pieces
from let_titan.teacher.sources import read_config
from let_titan.tokenizer.build import has_tokenizer, load_tokenizer
from let_titan.tokenizer.match import Reading, check_same_tokenizer
from let_titan.tokenizer.tiktoken_files import is_tiktoken

SAMPLE = 2**16
"""Tokens of the student's that are looked at, or one batch."""

NOT_MEASURED = (
    "How many tokens the teacher reads for one of the student's is not measured without both "
    "tokenizers and the data: it is priced as one."
)


@dataclass(frozen=True)
class TeacherReading:
    """A teacher's own reading of the beginning of the data.

    Attributes:
        tokens: of the student's that were looked at.
        positions_per_token: what the teacher reads for one of them, any padding included.
        target_share, padding_share: as in metrics.jsonl.
        same_needs: why the tokenizers are not one; "" where they are.
    """

    tokens: int
    positions_per_token: float
    target_share: float
    padding_share: float
    same_needs: str


def measure_reading(config: LetJobConfig) -> TeacherReading | None:
    """Reads the beginning of the training data with both tokenizers; None without them."""
    folder, teacher = config.model.hf_assets_path, config.teacher
    if not has_tokenizer(folder):
        return None
    theirs = read_tokenizer(*teacher.source)
    if theirs is None:
        return None
    ours = load_tokenizer(folder)
    try:
        text = teacher_text(config, ours, until=SAMPLE)
        loader = build_dataloader(1, 0, ours, config, teacher=text)
    except ConfigError:  # NotFoundHere: the findings have told it
        return None
    assert isinstance(loader, PileLoader)
    loader.workers, loader.pin_memory = 0, False
    training = config.training
    each = training.local_batch_size * training.seq_len
    packed = takes_pieces(read_config(*teacher.source))
    batches = islice(loader, max(1, SAMPLE // each))
    sums = Counts(*torch.stack([count(*batch, packed) for batch in batches]).sum(0).tolist())
    mine = Reading(ours.tokenizer, ours.bos_id, ours.eos_id, not is_tiktoken(folder))
    return TeacherReading(
        tokens=sums.valid,
        positions_per_token=sums.positions / sums.valid,
        target_share=sums.target_share,
        padding_share=sums.padding_share,
        same_needs=difference(mine, theirs),
    )


def difference(ours: Reading, theirs: Reading) -> str:
    """Says why the teacher could not read the student's ids; "" where it could."""
    try:
        check_same_tokenizer(ours, theirs)
    except ConfigError as error:
        return str(error)
    return ""
