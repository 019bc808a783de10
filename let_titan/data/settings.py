"""The [data] section; without torch, so that what reads a corpus starts without it."""

from dataclasses import dataclass, field
from typing import Literal

from let_titan.ranges import BELOW_ONE, COUNT, NOT_NEGATIVE


@dataclass
class Data:
    lanes: int = 0
    """
    Streams into which the documents are dealt. Runs with the same lanes read the same global
    batches on any number of ranks; a multiple of the data-parallel ranks x workers reads fastest.
    0: the data-parallel ranks at the start of the run; a resumed run keeps its own
    """

    shuffle_buffer: int = 0
    """
    Documents that are shuffled at once, along with the order of the files, anew in each epoch;
    held in memory per lane. 0 reads in the order of files and lines
    """

    shuffle_seed: int = 0
    """Seed of that shuffling only"""

    weights: list[str] = field(default_factory=list)
    """
    "PILE_SET_NAME:WEIGHT" each, e.g. "Github:0" leaves a set out, "Wikipedia (en):2" reads it
    twice an epoch, "Pile-CC:0.5" one half of it, another in each epoch. Sets not named: 1
    """

    validation_fraction: float = 0.0
    """
    Fraction of the documents, in [0, 1), that training leaves out and validation reads: those whose
    text's hash falls below it. 0: each reads the whole of its own files
    """

    add_bos: bool = True
    """Put the tokenizer's BOS, where it has one, before each document"""

    add_eos: bool = True
    """Put the tokenizer's EOS, where it has one, behind each document"""

    document_attention: bool = False
    """
    Let a packed sequence's tokens, the teacher's too, attend within their own document only, at
    positions that count from its start (block-diagonal masks by flex attention; needs a GPU)
    """

    bad_lines: Literal["skip", "stop"] = "skip"
    """
    What to do with a line that holds no document (bad JSON, no "text", invalid UTF-8, empty, too
    long) or a damaged file: "skip" it, counted in summary.json, or "stop" and name file and line
    """

    max_document_mib: int = 16
    """Text of a document, in MiB, above which it is a bad line ("too long"): bounds the memory"""


RANGES = {
    "lanes": NOT_NEGATIVE,
    "shuffle_buffer": NOT_NEGATIVE,
    "shuffle_seed": NOT_NEGATIVE,
    "max_document_mib": COUNT,
    "validation_fraction": BELOW_ONE,
}
"""The numbers that each key may take."""
