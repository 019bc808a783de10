"""The loader's second reading: each document by the teacher's tokenizer, beside the student's."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from let_titan.data.align import Slice, Special, TeacherRow, Twin, row_of
from let_titan.errors import ConfigError
from let_titan.tokenizer.encoder import Encoder

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
        pieces = encoder.pieces()
        self._pieces = np.array(pieces, dtype=object)  # taken by index faster than from a list
        self._lengths = np.array([len(piece) for piece in pieces])

    def ends(self, ids: np.ndarray, text: bytes) -> np.ndarray | None:
        """Returns where in ``text`` each id ends; None where the ids do not spell this text."""
        if b"".join(self._pieces[ids].tolist()) != text:
            return None
        return self.ends_of_spelled(ids)

    def ends_of_spelled(self, ids: np.ndarray) -> np.ndarray:
        """Returns where each id ends, of a text that they are known to spell."""
        return self._lengths[ids].cumsum()


def changed_text(encoder: Encoder) -> str | None:
    """Returns the first of some ordinary texts that a tokenizer does not keep byte for byte."""
    reader = Reader(encoder)
    for text, ids in zip(ORDINARY, encoder.encode(list(ORDINARY)), strict=True):
        if reader.ends(np.array(ids, dtype=np.int64), text.encode()) is None:
            return text
    return None


def check_spelling(whose: str, path: str, encoder: Encoder) -> None:
    """Checks that a tokenizer keeps ordinary text byte for byte.

    Args:
        whose: "student" or "teacher".
        path: where it is from.
        encoder: the tokenizer.

    Raises:
        ConfigError: names a text that it changes.
    """
    text = changed_text(encoder)
    if text is not None:
        raise ConfigError(
            f"A teacher that reads by itself needs places in bytes, and the {whose}'s tokenizer in "
            f"{path!r} changes text such as {text!r}: use one that keeps every byte, such as "
            "byte-level BPE."
        )


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
        """Reads documents of which the student's ids, BOS and EOS included, are given."""
        theirs = self.teacher.encode(texts)
        arrays = (np.array(ids, dtype=np.int64) for ids in theirs)
        return [self._twin(*each) for each in zip(texts, encoded, arrays, strict=True)]

    def _twin(self, text: str, ours: np.ndarray, theirs: np.ndarray) -> Twin | None:
        raw = text.encode()
        student, teacher = self._readers
        ends = student.ends(self._text_of(ours), raw)
        teacher_ends = teacher.ends(theirs, raw)
        if ends is None or teacher_ends is None:
            return None
        return self._joined(ends, theirs, teacher_ends)

    def ids(self, texts: list[str], encoded: list[np.ndarray]) -> list[np.ndarray]:
        """Returns the teacher's ids of each text, for a token shard; none where it is changed."""
        twins = self.twins(texts, encoded)
        return [np.empty(0, np.int64) if twin is None else twin.teacher_ids for twin in twins]

    def stored(self, ours: np.ndarray, theirs: np.ndarray | None) -> Twin | None:
        """Returns what ``twins`` found of a document when its token shard was made.

        Args:
            ours: the student's ids, BOS and EOS included.
            theirs: the teacher's, of the text alone; none where there was no twin.
        """
        if theirs is None or not len(theirs):
            return None
        student, teacher = self._readers
        ends = student.ends_of_spelled(self._text_of(ours))
        return self._joined(ends, theirs, teacher.ends_of_spelled(theirs))

    def _text_of(self, ids: np.ndarray) -> np.ndarray:
        return ids[int(self._bos) : len(ids) - int(self._eos)]

    def _joined(self, ends: np.ndarray, ids: np.ndarray, teacher_ends: np.ndarray) -> Twin:
        """Puts BOS and EOS around the student's ends."""
        before = np.zeros(int(self._bos), np.int64)
        after = np.full(int(self._eos), ends[-1])
        whole = np.concatenate((before, ends, after))
        return Twin(whole, self._bos, self._eos, ids, teacher_ends)

    def row(self, parts: Sequence[Slice]) -> TeacherRow:
        """Returns the teacher's row for a sequence's slices."""
        return row_of(parts, self._special, self.context)
