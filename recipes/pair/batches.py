"""What training reads for a student and a teacher with two tokenizers, without any training."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from let_titan.batch import Batch
from let_titan.build_data import pile_loader
from let_titan.data.settings import Data
from let_titan.data.teacher_text import TeacherText
from let_titan.tokenizer.build import RunTokenizer, encoder_of, load_tokenizer

SEQ_LEN, BATCH = 2048, 8
EVERYTHING = 2**62


def reading_of(student: str, teacher: str) -> tuple[RunTokenizer, TeacherText]:
    """Returns the student's tokenizer and what lets the teacher read beside it."""
    ours, theirs = load_tokenizer(student), encoder_of(load_tokenizer(teacher))
    return ours, TeacherText(encoder_of(ours), theirs, True, True, None, EVERYTHING)


def batches_of(ours: Any, text: TeacherText, corpus: str) -> Iterator[Batch]:
    """Returns the batches that training under the pair would read."""
    reading = SimpleNamespace(num_workers=0, prefetch_factor=None, pin_memory=False)
    section = SimpleNamespace(
        dataset_path=corpus, local_batch_size=BATCH, seq_len=SEQ_LEN, dataloader=reading
    )
    layout = {"lanes": 1, "rank": 0, "ranks": 1, "infinite": False}
    return iter(pile_loader(Data(), section, ours, validation=False, teacher=text, **layout))
