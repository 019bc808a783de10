"""A rank's share of the sequences: how they are dealt, and what each of its workers reads."""

import ctypes
import math
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from torch.utils.data import IterableDataset, get_worker_info

from let_titan.data.corpus import Corpus
from let_titan.data.lanes import Lane, PackedSequence, Place
from let_titan.errors import ConfigError


@dataclass(frozen=True)
class Deal:
    """How sequences are dealt, from sequence ``start`` on.

    Attributes:
        start: index of the first sequence, counted over the whole run and all ranks.
        lanes: V.
        rank, ranks: which data-parallel rank of how many.
        batch: sequences in a rank's batch.
    """

    start: int
    lanes: int
    rank: int
    ranks: int
    batch: int

    def followed(self) -> list[int]:
        """Returns the lanes of this rank's sequences, in the order in which they first come."""
        count = self.lanes // math.gcd(self.lanes, self.ranks)
        return [(self.start + self.rank + i * self.ranks) % self.lanes for i in range(count)]

    def indices(self, number: int) -> range:
        """Returns the sequences of all ranks' batch ``number`` from ``start`` on."""
        size = self.ranks * self.batch
        return range(self.start + number * size, self.start + (number + 1) * size)

    def is_mine(self, index: int) -> bool:
        return (index - self.start) % self.ranks == self.rank


@dataclass
class WorkerBatch:
    """What one worker adds to a rank's batch: its sequences by index, and where its lanes stand."""

    rows: dict[int, PackedSequence]
    places: dict[int, Place]
    skipped: dict[int, Counter[str]]


class Share(IterableDataset):
    """A rank's batches. Workers divide its lanes, and each adds the sequences of its own.

    Args:
        corpus, deal, places: what is read, whose part of it, and from where on.
        length: ids of a sequence.
        infinite: begin anew at the end of the data.
        until: sequences of the run that the teacher reads; in shared memory, so that it can be
            lowered while workers read ahead. The student's ids do not depend on it.
    """

    def __init__(
        self,
        corpus: Corpus,
        deal: Deal,
        places: dict[int, Place],
        length: int,
        infinite: bool,
        until: ctypes.c_longlong,
    ) -> None:
        self.corpus, self.deal, self.places = corpus, deal, places
        self.length, self.infinite, self.until = length, infinite, until

    def __iter__(self) -> Iterator[WorkerBatch | ConfigError]:
        worker = get_worker_info()
        if worker:
            # A fork lacks the threads of the tokenizer's pool, but would wait for them.
            os.environ["TOKENIZERS_PARALLELISM"] = "false"
        mine = self.deal.followed()
        mine = mine[worker.id :: worker.num_workers] if worker else mine
        lanes = {
            lane: Lane(
                self.corpus, lane, self.deal.lanes, self.length, self.places[lane], self.infinite
            )
            for lane in mine
        }
        number = 0
        try:
            while True:
                rows = self._rows(lanes, number)
                if rows is None:
                    return
                yield WorkerBatch(
                    rows,
                    {lane: stream.place for lane, stream in lanes.items()},
                    {lane: stream.skipped for lane, stream in lanes.items()},
                )
                number += 1
        except ConfigError as error:
            yield error  # the main process raises it: from a worker it would come as a traceback

    def _rows(self, lanes: dict[int, Lane], number: int) -> dict[int, PackedSequence] | None:
        """Returns the sequences of batch ``number`` that are ours; None at the end of a lane."""
        rows = {}
        for index in self.deal.indices(number):
            lane = lanes.get(index % self.deal.lanes)
            if lane is None:
                continue
            lane.aligned = lane.aligned and index < self.until.value
            try:
                sequence = lane.next()
            except StopIteration:
                return None
            if self.deal.is_mine(index):
                rows[index] = sequence
        return rows
