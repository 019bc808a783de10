"""A small corpus in The Pile's format, and how lanes read it."""

import json
from collections import Counter

import numpy as np

from let_titan.data.corpus import Corpus
from let_titan.data.files import data_files
from let_titan.data.lanes import Lane
from let_titan.data.policy import Policy
from let_titan.data.reading import read_file

ROWS = [{"text": f"document {i} " * (1 + i % 7), "meta": {"pile_set_name": "ab"[i % 2]}}
        for i in range(400)]  # fmt: skip
LINES = [json.dumps(row).encode() + b"\n" for row in ROWS]
MIB = 2**20


def read(path, lanes=1, epochs=1, **policy):
    """Reads a corpus's epochs lane by lane: (texts, what was skipped)."""
    known, texts, skipped = [], [], Counter()

    def encode(batch):
        known.extend(batch)
        return [np.array([i]) for i in range(len(known) - len(batch), len(known))]

    for lane in range(lanes):
        corpus = Corpus(data_files(str(path)), read_file, encode, Policy(**policy))
        stream = Lane(corpus, lane, lanes, 1, infinite=epochs > 1)
        try:
            while (text := known[int(stream.next().ids[0])]) and stream.place.epoch < epochs:
                texts.append(text)
        except StopIteration:
            pass
        skipped += stream.skipped
    return texts, dict(skipped)


def letters(texts):
    return [np.frombuffer(text.encode(), dtype=np.uint8).astype(np.int64) for text in texts]
