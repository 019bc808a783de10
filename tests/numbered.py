"""A corpus whose documents are their own numbers, read on any ranks."""

import itertools
import json

import numpy as np

from let_titan.data.corpus import Corpus
from let_titan.data.files import data_files
from let_titan.data.lines import read_lines
from let_titan.data.loader import PileLoader
from let_titan.data.policy import Policy

LENGTH = 8  # ids of a sequence, labels' last one included


def encode(texts):
    """Every document becomes its own number, over and over: as many ids as its text is long."""
    return [np.full(len(text), int(text.split()[0]), dtype=np.int64) for text in texts]


def write_corpus(folder, n_files=5, documents=120):
    """Documents i of 5 to 30 ids, all of them ``i``, in files of unequal sizes."""
    rng = np.random.default_rng(0)
    rows = [f"{i:05d} " + "x" * int(rng.integers(0, 25)) for i in range(documents)]
    cuts = [0, *sorted(rng.choice(documents - 1, n_files - 1, replace=False) + 1), documents]
    folder.mkdir(exist_ok=True)
    for n, (begin, end) in enumerate(itertools.pairwise(cuts)):
        lines = (json.dumps({"text": text}) + "\n" for text in rows[begin:end])
        (folder / f"{n}.jsonl").write_text("".join(lines))
    return {i: len(text) for i, text in enumerate(rows)}


def corpus(folder, **options):
    return Corpus(data_files(f"{folder}/*.jsonl"), read_lines, encode, Policy(), **options)


def loader(folder, rank, ranks, *, options=None, batch=2, **more):
    return PileLoader(
        corpus(folder, **(options or {})),
        {},
        rank=rank,
        ranks=ranks,
        batch=batch,
        seq_len=LENGTH - 1,
        **more,
    )


def take(iterator, n):
    return [batch_ids(batch) for batch in itertools.islice(iterator, n)]


def batch_ids(batch):
    inputs, labels = batch[0]["input"], batch[1]
    assert inputs[:, 1:].equal(labels[:, :-1])
    return [[int(row[0]), *map(int, last)] for row, last in zip(inputs, labels, strict=True)]


SHUFFLED = {"shuffle_buffer": 7, "shuffle_seed": 3}


def iter_lane(lane):
    while True:
        try:
            yield lane.next().ids
        except StopIteration:
            return
