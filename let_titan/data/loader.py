"""The training loader, whose state is a position in the corpus, whatever the ranks and workers.

The invariant: **with the same number of lanes the global batch of a step holds the same sequences
whatever the number of ranks and workers.** Sequence j of the run is the next one of lane j mod V
(``lanes``); ranks deal sequences among themselves (rank r of R takes those with
(j - start) mod R = r), so each accumulation step of R x local_batch_size sequences is the same set
in any layout, and j and the positions of the V lanes say what was consumed. A rank follows only the
lanes that its sequences come from: V / R of them where R divides V, so that each document is
tokenised once. For other R the order is the same, but a rank follows V / gcd(V, R) lanes.

V defaults to the number of data-parallel ranks at the start of the run (one process: one stream of
documents in their order) and then stays with the checkpoint; ``data.lanes`` sets it, for instance
to make runs on different numbers of ranks read the same batches from their first step on.

The state has one key and is the same on every rank, which collects it from the others: DCP keeps
one copy of what is not a tensor and gives it to any number of ranks. It is written as JSON, since
DCP takes dicts apart into keys of their own.
"""

import json
import multiprocessing
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from torchtitan.components.dataloader import BaseDataLoader
from torchtitan.tools.logging import logger

from let_titan.batch import Batch
from let_titan.collectives import gathered
from let_titan.data.align import TeacherRow, joined
from let_titan.data.corpus import Corpus
from let_titan.data.lanes import Place
from let_titan.data.share import Deal, Share, WorkerBatch
from let_titan.errors import ConfigError, printing_errors
from let_titan.helpers import serve_rank_in_workers, signals_blocked


class PileLoader(BaseDataLoader):
    """Batches of packed documents for one data-parallel rank.

    Args:
        corpus: what is read.
        identity: what a checkpoint must share with this run to be resumed: {name: value}.
        rank, ranks: which data-parallel rank of how many.
        batch: sequences in a batch.
        seq_len: ids of a sequence that the model reads.
        lanes: V; 0: ``ranks``, or what the checkpoint says.
        infinite: begin anew at the end of the data.
        workers: processes that read ahead; 0 reads in this one.
        prefetch: batches that each worker reads ahead.
        pin_memory: put batches into memory from which copies to a GPU are fast.
        positions: give each id's position in its document, [B, S], along with the ids.
        numbered: give "sequences", [B], each one's number in the run, along with them.
    """

    def __init__(
        self,
        corpus: Corpus,
        identity: dict[str, Any],
        *,
        rank: int,
        ranks: int,
        batch: int,
        seq_len: int,
        lanes: int = 0,
        infinite: bool = True,
        workers: int = 0,
        prefetch: int | None = None,
        pin_memory: bool = False,
        positions: bool = False,
        numbered: bool = False,
    ) -> None:
        self.corpus, self.identity = corpus, {**identity, "seq_len": seq_len}
        self.rank, self.ranks, self.batch, self.seq_len = rank, ranks, batch, seq_len
        self.fixed_lanes, self.infinite = lanes, infinite
        self.workers, self.prefetch, self.pin_memory = workers, prefetch, pin_memory
        self.positions, self.numbered = positions, numbered
        self._until = multiprocessing.RawValue("q", corpus.teacher.until if corpus.teacher else 0)
        self._begin(0, {lane: Place() for lane in range(lanes or ranks)})

    def _begin(self, start: int, places: dict[int, Place]) -> None:
        """Stands at sequence ``start``, with all lanes' places."""
        self.deal = Deal(start, len(places), self.rank, self.ranks, self.batch)
        self.sequences = start
        self.places = {lane: places[lane] for lane in self.deal.followed()}
        self.counts = {lane: Counter(place.skipped) for lane, place in self.places.items()}

    def __iter__(self) -> Iterator[Batch]:
        deal = Deal(self.sequences, self.deal.lanes, self.rank, self.ranks, self.batch)
        places, length = dict(self.places), self.seq_len + 1
        share = Share(self.corpus, deal, places, length, self.infinite, self._until)
        workers = min(self.workers, len(self.places))
        stream = iter(share)
        if workers:
            loader = DataLoader(
                share, batch_size=None, num_workers=workers, prefetch_factor=self.prefetch
            )
            serve_rank_in_workers(loader)
            with signals_blocked():
                stream = iter(loader)
        while parts := self._parts(stream, max(1, workers)):
            yield self._joined(parts)

    def teacher_left(self) -> None:
        """Stops tokenizing for the teacher early, in the workers as well."""
        self._until.value = 0

    def _parts(self, stream: Iterator[WorkerBatch | ConfigError], count: int) -> list[WorkerBatch]:
        """Returns each worker's addition to the next batch (torch asks them in turn)."""
        parts = []
        for part in (next(stream, None) for _ in range(count)):
            if isinstance(part, ConfigError):
                with printing_errors():
                    raise part
            if part is None:
                return []
            parts.append(part)
        return parts

    def _joined(self, parts: list[WorkerBatch]) -> Batch:
        """Returns the batch, [B, S] ids and labels, and moves the position behind it."""
        numbered = {index: row for part in parts for index, row in part.rows.items()}
        rows = [numbered[index] for index in sorted(numbered)]
        for part in parts:
            self.places |= part.places
            self.counts |= part.skipped
        self.sequences += self.ranks * self.batch
        ids = stacked(row.ids for row in rows)
        batch = {"input": ids[:, :-1].contiguous(), "labels": ids[:, 1:].contiguous()}
        if self.positions:
            batch["positions"] = stacked(row.positions[:-1] for row in rows)
        if self.numbered:
            batch["sequences"] = torch.tensor(sorted(numbered))
        batch |= self._for_the_teacher([row.teacher for row in rows if row.teacher is not None])
        if self.pin_memory:
            batch = {
                name: each.pin_memory() if isinstance(each, torch.Tensor) else each
                for name, each in batch.items()
            }
        return batch, batch.pop("labels")

    def _for_the_teacher(self, rows: list[TeacherRow]) -> dict[str, Any]:
        """Returns what a teacher with a tokenizer of its own reads; {} where there is none.

        Its rows differ in length: "teacher_input" [N] is their concatenation, and
        "teacher_targets" [B, S] are indices into it. "teacher_pieces" stays on the host: for each
        row the lengths of its documents where each is read by itself, else that of the row.
        """
        if not rows or not self._until.value:  # workers had read these ahead
            return {}
        ids, targets = joined(rows)
        pieces = [row.documents for row in rows]
        if not self.positions:
            pieces = [[sum(row)] if row else [] for row in pieces]
        return {
            "teacher_input": torch.from_numpy(ids),
            "teacher_targets": torch.from_numpy(targets),
            "teacher_pieces": pieces,
        }

    def state_dict(self) -> dict[str, Any]:
        """Returns the position; asks the other ranks, so every rank calls it."""
        places = merged(gathered(self.places))
        state = {
            **self.identity,
            "lanes": self.deal.lanes,
            "sequences": self.sequences,
            "places": {str(lane): places[lane]._asdict() for lane in sorted(places)},
        }
        return {"position": json.dumps(state)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes to a position saved on any number of ranks.

        Raises:
            ConfigError: it was saved with another corpus, tokenizer, or number of lanes.
        """
        if not state_dict:
            return
        state = json.loads(state_dict["position"])
        for name, value in {**self.identity, "lanes": self.fixed_lanes}.items():
            if state[name] != value and (name != "lanes" or value):
                raise ConfigError(
                    f"The checkpoint's data has {name} = {state[name]!r}, and this run "
                    f"{value!r}: resume with the same, or add dataloader to "
                    "checkpoint.exclude_from_loading to begin the data anew."
                )
        places = {int(lane): Place(**place) for lane, place in state["places"].items()}
        self._begin(state["sequences"], places)
        message = f"Data: goes on after sequence {self.sequences:,}, {len(places)} lanes"
        if len(places) % self.ranks:
            message += (
                f", of which each of {self.ranks} ranks reads {len(self.places)}; a number of "
                "ranks that divides them tokenises less"
            )
        logger.info(message)

    def skipped(self) -> dict[str, int]:
        """Returns the bad lines met so far by kind, over all ranks, each of which calls it."""
        counts = merged(gathered(self.counts)).values()
        return dict(sorted(sum(counts, Counter()).items()))


def stacked(rows: Iterable[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.stack(list(rows)))


def merged(parts: list[dict[int, Any]]) -> dict[int, Any]:
    """Joins what ranks say of their lanes; those that follow the same lane say the same."""
    return {lane: value for part in parts for lane, value in part.items()}
