"""The loader's second reading: each document by the teacher's tokenizer, beside the student's."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from let_titan.data.align import Slice, Special, TeacherRow, Twin, row_of
from let_titan.encoder import Encoder

PADDING = -1
"""In the teacher's ids: behind a row that is shorter than its batch's longest."""


ORDINARY = (
    "The quick brown fox doesn't jump; it's 3.14159 or 1,234,567 lazy dogs, they'll say!",
    " leading, trailing  and   several    spaces ",
    "tabs\tand\nlines\r\n\r\n\n\n    of code: if (x != y) { return f'{x:>8}'; }  // ok",
    "na\u00efve caf\u00e9 \u00bd \u2460 STRASSE stra\u00dfe \u20ac5",
    "\u4f60\u597d\uff0c\u4e16\u754c \u65e5\u672c\u8a9e \ud55c\uad6d\uc5b4",
    "\u0645\u0631\u062d\u0628\u0627 \u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35",
    "\U0001f468\u200d\U0001f469 \U0001f600\u00a0\u2003",
)
"""In Unicode's normal form C, which some tokenizers bring every text to."""


class Reader:
    """One of the two tokenizers: where its tokens end."""

    def __init__(self, encoder: Encoder) -> None:
        self._pieces = encoder.pieces()
        self._lengths = np.array([len(piece) for piece in self._pieces])

    def ends(self, ids: list[int], text: bytes) -> np.ndarray | None:
        """Returns where in ``text`` each id ends; None where the ids do not spell this text."""
        if b"".join([self._pieces[i] for i in ids]) != text:
            return None
        return self._lengths[ids].cumsum()


def changed_text(encoder: Encoder) -> str | None:
    """Returns the first of some ordinary texts that a tokenizer does not keep byte for byte."""
    reader = Reader(encoder)
    read = zip(ORDINARY, encoder.encode(list(ORDINARY)), strict=True)
    return next((text for text, ids in read if reader.ends(ids, text.encode()) is None), None)


@dataclass
class TeacherText:
    """What a corpus needs to give sequences their teacher's row.

    A document that a tokenizer changes (by a normaliser, say) has no offsets in bytes: the teacher
    does not read it, and its tokens have no targets.

    Args:
        student, teacher: the tokenizers.
        add_bos, add_eos: as in [data], for both.
        context: ids that the teacher can read; None: any number.
        until: sequences of the run, over all ranks, that have a teacher.
    """

    student: Encoder
    teacher: Encoder
    add_bos: bool
    add_eos: bool
    context: int | None
    until: int
    _readers: tuple[Reader, Reader] = field(init=False)

    def __post_init__(self) -> None:
        self._readers = Reader(self.student), Reader(self.teacher)
        self._bos = self.add_bos and self.student.bos_id is not None
        self._eos = self.add_eos and self.student.eos_id is not None
        self._special = Special(
            self.teacher.bos_id if self.add_bos else None,
            self.teacher.eos_id if self.add_eos else None,
        )

    def twins(self, texts: list[str], encoded: list[np.ndarray]) -> list[Twin | None]:
        """Reads documents, of which the student's ids, BOS and EOS included, are there already."""
        theirs = self.teacher.encode(texts)
        return [self._twin(*each) for each in zip(texts, encoded, theirs, strict=True)]

    def _twin(self, text: str, ours: np.ndarray, theirs: list[int]) -> Twin | None:
        raw = text.encode()
        inner = ours[int(self._bos) : len(ours) - int(self._eos)].tolist()
        student, teacher = self._readers
        ends, teacher_ends = student.ends(inner, raw), teacher.ends(theirs, raw)
        if ends is None or teacher_ends is None:
            return None
        whole = [np.zeros(int(self._bos), np.int64), ends, np.full(int(self._eos), len(raw))]
        ids = np.array(theirs, dtype=np.int64)
        return Twin(np.concatenate(whole), self._bos, self._eos, ids, teacher_ends)

    def row(self, parts: Sequence[Slice]) -> TeacherRow:
        """Returns the teacher's row for a sequence's slices."""
        return row_of(parts, self._special, self.context)

    def batch(self, rows: Sequence[TeacherRow], multiple: int) -> dict[str, torch.Tensor]:
        """Joins rows, padded to the longest one, rounded up to a multiple where the context allows.

        Returns:
            "teacher_input" and "teacher_positions" [B, T] int64, "teacher_targets" [B, S] int32.
        """
        longest = max(1, *(len(row.ids) for row in rows))
        width = -(-longest // multiple) * multiple
        width = width if self.context is None else min(width, self.context)
        ids = np.full((len(rows), width), PADDING)
        positions = np.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, : len(row.ids)] = row.ids
            positions[i, : len(row.ids)] = row.positions
        targets = np.stack([row.targets for row in rows])
        return {
            "teacher_input": torch.from_numpy(ids),
            "teacher_positions": torch.from_numpy(positions),
            "teacher_targets": torch.from_numpy(targets),
        }
