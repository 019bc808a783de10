"""Where a step's time goes: on the device's own clock, without making the host wait for it."""

import itertools
import time
from typing import Any

import torch

PHASES = ("data", "teacher", "forward", "backward", "optimizer", "rest")


class Clock:
    """Attributes time to phases: from ``enter(name)`` on, until the next ``enter``.

    On a GPU each mark is an event in the current stream, so the sum over a step's phases is the
    step's time on the device, idle time included; on a CPU it is ``time.perf_counter``.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._marks: list[tuple[str, Any]] = []
        self._starts: list[int] = []

    def enter(self, phase: str) -> None:
        self._marks.append((phase, self._now()))

    def next_step(self) -> None:
        """Begins a step with its data; the step before it ends here."""
        self._starts.append(len(self._marks))
        self.enter("rest")

    def steps(self) -> list[dict[str, float]]:
        """Ends the last step; returns each step's seconds by phase."""
        self._starts.append(len(self._marks))
        self.enter("end")
        if self._on_gpu:
            torch.cuda.synchronize()
        found = []
        for begin, end in itertools.pairwise(self._starts):
            phases = dict.fromkeys(PHASES, 0.0)
            marks = self._marks[begin : end + 1]
            for (phase, start), (_, stop) in itertools.pairwise(marks):
                phases[phase] += self._between(start, stop)
            found.append(phases)
        return found

    def _now(self) -> Any:
        if not self._on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _between(self, start: Any, stop: Any) -> float:
        return start.elapsed_time(stop) / 1e3 if self._on_gpu else stop - start
