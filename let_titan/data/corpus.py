"""A corpus, and how it is cut into lanes of equal bytes.

Its files, laid end to end, are cut into V equal parts, so that a lane has a few files and no rank
reads them all (F files and V lanes make at most F + V - 1 pairs of a file and a lane: 30 equal
files on 32 lanes are read twice in all). Where lanes share a file, its documents are dealt among
them by number, in proportion to their parts; each of these lanes reads the file's bytes, and
tokenises its own documents only.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from let_titan.data.files import File
from let_titan.data.lines import Line
from let_titan.data.policy import Policy
from let_titan.data.teacher_text import TeacherText
from let_titan.tokenizer.encoder import DocumentEncoder

SPAN = 2**64
GOLDEN = 0x9E3779B97F4A7C15
"""2**64 / golden ratio: multiples of it (mod 2**64) fall evenly into any parts of [0, 2**64)."""

FileReader = Callable[[File, int, int, int], Iterator[Line]]
"""(file, line number, offset, limit) -> the lines from there on; ``data.reading.read_file``."""


@dataclass(frozen=True)
class Part:
    """A lane's part of a file: the documents whose key lies in [low, high) of [0, 2**64)."""

    file: File
    low: int
    high: int

    def owns(self, number: int) -> bool:
        return self.low <= (number + 1) * GOLDEN % SPAN < self.high


def parts_of(files: list[File], lane: int, lanes: int) -> list[Part]:
    """Returns a lane's parts of ``files``; those of all lanes make up each file exactly once."""
    total, start, parts = sum(file.size for file in files), 0, []
    for file in files:
        # In units of 1/lanes bytes, so that all is exact.
        begin, end = start * lanes, (start + file.size) * lanes
        low, high = max(begin, lane * total), min(end, (lane + 1) * total)
        if low < high:
            part = Part(file, *((x - begin) * SPAN // (end - begin) for x in (low, high)))
            parts.append(part)
        start += file.size
    return parts


@dataclass
class Corpus:
    """All that a lane needs to read: plain values, the same on all ranks.

    Args:
        files: in their order.
        read: yields a file's lines from (line number, offset) on.
        encode: turns texts into ids with BOS and EOS.
        policy: which documents count.
        shuffle_seed: of the order of files and documents.
        shuffle_buffer: documents shuffled at once; 0 reads in order.
        teacher: gives sequences what a teacher with a tokenizer of its own reads.
    """

    files: list[File]
    read: FileReader
    encode: DocumentEncoder
    policy: Policy
    shuffle_seed: int = 0
    shuffle_buffer: int = 0
    teacher: TeacherText | None = None

    def parts(self, epoch: int, lane: int, lanes: int) -> list[Part]:
        """Returns a lane's parts in an epoch; the order of the files is every lane's."""
        files = self.files
        if self.shuffle_buffer:
            order = np.random.default_rng([self.shuffle_seed, epoch]).permutation(len(files))
            files = [files[i] for i in order]
        return parts_of(files, lane, lanes)
