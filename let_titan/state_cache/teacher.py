"""Stands in for the teacher: in runs that read its states, and in the one that writes them.

Both are told a batch's sequences before they are called with it, while it is still on the CPU. The
run that writes trains on the rounded states, too, so that all runs see the same numbers.
"""

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from let_titan.errors import printing_errors
from let_titan.state_cache.files import StateFiles
from let_titan.teacher import Teacher
from let_titan.teacher.blocks import ResolvedLayer

KEPT = torch.bfloat16


class CachedTeacher:
    """Gives a teacher's states from a cache; there is no model.

    Args:
        files: with all the sequences that will be asked for.
        layers: one entry per state to give, as ``Teacher`` has them.
        device: where the states go.
        dtype: which they are given in.
    """

    def __init__(
        self,
        files: StateFiles,
        layers: Sequence[ResolvedLayer],
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.files, self.device, self.dtype = files, device, dtype
        self.layers = tuple(map(str, layers))
        self._ahead: deque[Future[list[list[torch.Tensor]]]] = deque()
        self._reader = ThreadPoolExecutor(1, "teacher-states")

    def expect(self, sequences: Sequence[int]) -> None:
        """Begins to read the states for a later call; calls take them in the order announced."""
        self._ahead.append(self._reader.submit(self._read, sequences))

    def _read(self, sequences: Sequence[int]) -> list[list[torch.Tensor]]:
        """In pinned memory for a GPU, to which the call then copies without a wait."""
        states = self.files.read(sequences, self.layers)
        if self.device.type != "cuda":
            return states
        return [[row.pin_memory() for row in rows] for rows in states]

    def __call__(
        self, input: torch.Tensor, positions: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, ...]:
        """As ``Teacher``; the ids themselves are not looked at."""
        with printing_errors():
            states = self._ahead.popleft().result()
        here = ([row.to(self.device, non_blocking=True) for row in rows] for rows in states)
        return tuple(torch.stack(rows).to(self.dtype) for rows in here)

    def end_step(self) -> None:
        """As ``WritingTeacher``, with nothing to write."""


class WritingTeacher:
    """A teacher whose states are rounded to bfloat16, given so, and written once a step.

    Args:
        teacher: which computes them.
        files: where they go; sequences that are there already are not written again.
        writes: whether this rank does; others that read the same sequences leave it to that one.
    """

    def __init__(self, teacher: Teacher, files: StateFiles, writes: bool) -> None:
        self.teacher, self.files, self.writes = teacher, files, writes
        self._expected: deque[Sequence[int]] = deque()
        self._kept: dict[int, dict[str, torch.Tensor]] = {}

    def expect(self, sequences: Sequence[int]) -> None:
        """Announces the sequences of a later call; calls take them in the order announced."""
        self._expected.append(sequences)

    def __call__(
        self, input: torch.Tensor, positions: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, ...]:
        """As ``Teacher``."""
        states = self.teacher(input, positions)
        rounded = [each.to(KEPT) for each in states]
        sequences = self._expected.popleft()
        if self.writes:
            names = map(str, self.teacher.layers)
            here = dict(zip(names, (each.cpu() for each in rounded), strict=True))
            for row, number in enumerate(sequences):
                if number not in self.files.rows:
                    self._kept[number] = {layer: each[row] for layer, each in here.items()}
        return tuple(few.to(whole.dtype) for few, whole in zip(rounded, states, strict=True))

    def end_step(self) -> None:
        """Writes the step's states, before a checkpoint of the step can be."""
        if not self._kept:
            return
        numbers = sorted(self._kept)
        layers = self._kept[numbers[0]]
        states = {layer: torch.stack([self._kept[n][layer] for n in numbers]) for layer in layers}
        with printing_errors():
            self.files.write(numbers, states)
        self._kept = {}
