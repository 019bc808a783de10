"""Sequences' states in safetensors files, found by the sequence's number in the run.

A rank writes one file a step, under another name until it is whole, and then a line of its own
manifest: the file's name, sum and sequences. So what a kill interrupts is not in any manifest, and
whatever is in one can be checked.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from let_titan.checkpoint.checksums import checksum
from let_titan.errors import RunError, writing


class Row(NamedTuple):
    """Where a sequence's states are: which row of which file, and the file's sum."""

    file: str
    row: int
    sum: str


class StateFiles:
    """The files of one folder.

    Args:
        folder: where they are.
        rank: the process's number in the run, which is part of the names that it writes.

    Attributes:
        rows: {sequence: its place}, of all ranks' manifests when this was made, and what was
            written since.
    """

    def __init__(self, folder: Path, rank: int) -> None:
        self.folder, self.rank = folder, rank
        self.rows: dict[int, Row] = {}
        self._sound: set[str] = set()
        for manifest in sorted(folder.glob("rank-*.jsonl")):
            for line in manifest.read_text().splitlines():
                try:
                    entry = json.loads(line)
                    self._add(entry["file"], entry["sequences"], entry["xxh3_128"])
                except (ValueError, KeyError, TypeError):
                    continue  # cut short by a kill: its file is written anew

    def missing(self, sequences: Iterable[int]) -> int:
        """Returns how many of ``sequences`` are not here."""
        return sum(number not in self.rows for number in sequences)

    def _add(self, file: str, sequences: Iterable[int], sum_of_file: str) -> None:
        self.rows |= {number: Row(file, i, sum_of_file) for i, number in enumerate(sequences)}

    def write(self, sequences: Sequence[int], states: Mapping[str, torch.Tensor]) -> None:
        """Writes the states of ``sequences``, {layer: [n, S, d_T]}, as one file.

        Raises:
            RunError: the file system refuses.
        """
        path = self.folder / f"{min(sequences):012d}-{self.rank:05d}.safetensors"
        scratch = path.with_suffix(f".{os.getpid()}.tmp")
        with writing(path):
            save_file(dict(states), scratch)
            found = checksum(scratch)
            entry = {"file": path.name, "sequences": [*sequences], "xxh3_128": found}
            os.replace(scratch, path)
            with open(self.folder / f"rank-{self.rank:05d}.jsonl", "a+b") as manifest:
                if manifest.tell():  # what a kill left of a line ends here
                    manifest.seek(-1, os.SEEK_END)
                    if manifest.read(1) != b"\n":
                        manifest.write(b"\n")
                manifest.write(json.dumps(entry).encode() + b"\n")
        self._add(path.name, sequences, found)

    def read(self, sequences: Sequence[int], layers: Sequence[str]) -> list[list[torch.Tensor]]:
        """Returns the states of ``sequences``, for each layer n of [S, d_T], in their order.

        A file's sum is compared before the first of its rows is taken. Nothing is computed, so that
        a thread may call this beside a step: for ops there, torch would start a second team of
        OpenMP threads, which then spins on the step's cores.

        Raises:
            RunError: a file is missing, or is not what was written.
        """
        found: dict[str, list[torch.Tensor]] = {layer: [] for layer in layers}
        for number in sequences:
            place = self.rows[number]
            path = self.folder / place.file
            self._check(path, place.sum)
            with safe_open(path, "pt") as file:
                for layer, rows in found.items():
                    rows.append(file.get_slice(layer)[place.row])
        return [found[layer] for layer in layers]

    def _check(self, path: Path, wanted: str) -> None:
        if path.name in self._sound:
            return
        if not path.is_file() or checksum(path) != wanted:
            raise RunError(
                f"The teacher's states in {str(path)!r} are missing or not as written: remove the "
                "whole folder, and the next run writes it anew, or leave teacher.cache out."
            )
        self._sound.add(path.name)
