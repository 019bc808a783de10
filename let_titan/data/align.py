"""Pairs each of the student's tokens with one of the teacher's, where their tokenizers differ.

Places in a document are bytes of its text. A token's target is the last of the teacher's tokens
that ends at or before the token's own end: of what the student has read, the most that the teacher
has read whole. BOS meets BOS and EOS meets EOS; a token has no target (-1) where there is no such
token of the teacher's in the same piece of the document.

A target's state depends on the teacher's tokens up to it, and these hold no byte after the
student's token. (How the bytes before are cut into tokens may depend on what follows, in either
tokenizer, as it does wherever a token is predicted.)
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

NO_TARGET = -1


class Special(NamedTuple):
    """The teacher's ids around a document; None: it has none, or is given none."""

    bos: int | None
    eos: int | None


class Twin(NamedTuple):
    """A document as both tokenizers cut it.

    Attributes:
        ends: [n] int64, where each of the student's ids ends: a BOS at 0, an EOS with the text.
        bos, eos: whether the first and the last of these ids are a BOS and an EOS.
        teacher_ids: [m] int64, of the text alone.
        teacher_ends: [m] int64.
    """

    ends: np.ndarray
    bos: bool
    eos: bool
    teacher_ids: np.ndarray
    teacher_ends: np.ndarray


class Slice(NamedTuple):
    """The student's ids ``begin`` to ``end`` of a document; no twin: the teacher reads none."""

    twin: Twin | None
    begin: int
    end: int


class TeacherRow(NamedTuple):
    """What the teacher reads for a packed sequence of the student's.

    Attributes:
        ids: [n] int64.
        documents: how many of them each document's slice has, where it has any.
        targets: [S] int32, for each of the student's ids one of ``ids`` by its index, or -1.
    """

    ids: np.ndarray
    documents: list[int]
    targets: np.ndarray


def meet(ends: np.ndarray, teacher_ends: np.ndarray) -> np.ndarray:
    """Returns, for each end, the last of the teacher's tokens that ends at or before it, or -1."""
    return np.searchsorted(teacher_ends, ends, side="right") - 1


def of_slice(part: Slice, special: Special) -> tuple[np.ndarray, np.ndarray]:
    """Returns the teacher's ids [m] for a slice, and the slice's targets among them.

    They are those that lie whole within the slice's bytes: the teacher reads nothing that the
    student does not.
    """
    twin, begin, end = part
    if twin is None or begin == end:
        return np.empty(0, np.int64), np.full(end - begin, NO_TARGET)
    ends = twin.ends[begin:end]
    start = twin.ends[begin - 1] if begin else 0
    first = np.searchsorted(twin.teacher_ends, start) + 1 if start else 0
    last = np.searchsorted(twin.teacher_ends, ends[-1], side="right")
    at_begin, at_end = begin == 0, end == len(twin.ends)
    before = as_ids(special.bos if at_begin else None)
    after = as_ids(special.eos if at_end else None)
    ids = np.concatenate((before, twin.teacher_ids[first:last], after))
    found = meet(ends, twin.teacher_ends)
    targets = np.where(found >= first, found - first + len(before), NO_TARGET)
    if twin.bos and at_begin:
        targets[0] = 0 if len(before) else NO_TARGET
    if twin.eos and at_end:
        targets[-1] = len(ids) - 1 if len(after) else NO_TARGET
    return ids, targets


def as_ids(index: int | None) -> np.ndarray:
    return np.array([] if index is None else [index], dtype=np.int64)


def row_of(parts: Sequence[Slice], special: Special, context: int | None = None) -> TeacherRow:
    """Returns the teacher's row for the slices that make up a sequence of the student's.

    Args:
        parts: in their order.
        special: the teacher's.
        context: ids that the teacher can read; what lies beyond is cut off, and is no target.
    """
    read, targets, length = [], [], 0
    for part in parts:
        ids, found = of_slice(part, special)
        read.append(ids)
        targets.append(np.where(found == NO_TARGET, NO_TARGET, found + length))
        length += len(ids)
    joined = np.concatenate(targets)
    ends = np.cumsum([len(ids) for ids in read])
    if context is not None:
        joined[joined >= context] = NO_TARGET
        ends = ends.clip(max=context)
    documents = [n for n in np.diff(ends, prepend=0).tolist() if n]
    return TeacherRow(np.concatenate(read)[:context], documents, joined.astype(np.int32))


def joined(rows: Sequence[TeacherRow]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the ids of a batch's rows end to end, [N], and the targets among them, [B, S]."""
    ids = np.concatenate([row.ids for row in rows])
    begins = np.cumsum([0, *(len(row.ids) for row in rows[:-1])])
    targets = np.stack([row.targets for row in rows])
    found = np.where(targets == NO_TARGET, NO_TARGET, targets + begins[:, None])
    return ids, found.astype(np.int32)
