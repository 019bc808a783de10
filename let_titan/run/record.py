"""A run's ``metrics.jsonl``: one JSON object a line, written by one rank, cut on resume.

The keys are listed in docs/what-a-run-leaves.md.
"""

import json
import math
import time
from pathlib import Path
from typing import Any

from torchtitan.components.metrics import BaseLogger

from let_titan.errors import writing
from let_titan.run.used_folder import cut
from let_titan.runs import CLOCK, Line, read_lines

# our key: the key under which torchtitan's MetricsProcessor (or ours) logs it
TRAIN_KEYS = {
    "loss": "loss_metrics/global_avg_loss",
    "align_loss": "let/align_loss",
    "align_cosine": "let/align_cosine",
    "lambda": "let/lambda",
    "grad_norm": "grad_norm",
    "lr": "lr",
    "tokens": "n_tokens_seen",
}
SOME_KEYS = {
    "kd_loss": "let/kd_loss",
    "kd_agreement": "let/kd_agreement",
    "align_target_share": "let/align_target_share",
    "teacher_padding_share": "let/teacher_padding_share",
}
"""Only in runs with [distill], and in those whose teacher has a tokenizer of its own."""

COST_KEYS = {
    "memory_gib": "memory/max_active(GiB)",
    "teacher_active": "let/teacher_active",
    "student_flops": "let/student_flops",
    "teacher_flops": "let/teacher_flops",
}
VALIDATION_KEY = "validation_metrics/loss"


class MetricsFile(BaseLogger):
    """Takes what torchtitan hands its loggers and appends a line to ``metrics.jsonl``.

    Args:
        path: the file.
        world_size: the number of devices, to make tokens/s the whole run's.
    """

    def __init__(self, path: Path, world_size: int) -> None:
        self.path = path
        self.world_size = world_size
        self._origin = time.perf_counter()

    def resume(self, step: int, validates: bool = True) -> None:
        """Continues after ``step``: removes later lines, sets the clock to the checkpoint's time.

        The validation line of ``step`` is removed, too, if the resumed run validates there: it is
        written after the checkpoint, so that a kill may have prevented it.

        Args:
            step: the steps that are done.
            validates: whether this start validates after ``step``. One that is extended, or
                validates at other steps than before, does not, and keeps the line.
        """

        def stays(line: Line) -> bool:
            last = step - 1 if validates and "val_loss" in line else step
            return line["step"] <= last

        lines = cut(self.path, stays)
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.touch()
        # Of a run by an earlier version only the lines know the time.
        timed = [*lines, *cut(self._clock, lambda line: line["step"] <= step)]
        elapsed = max((line.get("elapsed_s", 0.0) for line in timed), default=0.0)
        self._origin = time.perf_counter() - elapsed

    def note_saved(self, step: int) -> None:
        """Notes when the checkpoint of ``step`` was saved.

        The lines are too coarse for that: on a resume, the time since the last would not count.
        """
        self._append({"step": step, "elapsed_s": self._elapsed()}, self._clock)

    def lines(self) -> list[dict[str, Any]]:
        """Returns all lines so far."""
        return read_lines(self.path) if self.path.exists() else []

    def log(self, metrics: dict[str, Any], step: int) -> None:
        if VALIDATION_KEY in metrics:
            line = {
                "step": step,
                "val_loss": metrics[VALIDATION_KEY],
                "val_ppl": math.exp(min(metrics[VALIDATION_KEY], 700.0)),
                "val_bits_per_byte": metrics["validation_metrics/bits_per_byte"],
            }
        else:
            line = {"step": step, **{ours: metrics.get(key) for ours, key in TRAIN_KEYS.items()}}
            line["elapsed_s"] = self._elapsed()
            # torchtitan's figure is per device
            line["tokens_per_s"] = metrics["throughput(tps)"] * self.world_size
            line |= {ours: metrics.get(key) for ours, key in COST_KEYS.items()}
            line |= {ours: metrics[key] for ours, key in SOME_KEYS.items() if key in metrics}
            line["teacher_active"] = bool(line["teacher_active"])
        self._append(line)

    def note_nonfinite(self, step: int, ranks: dict[str, list[int]]) -> None:
        """Notes a step that was left out: {"step", "nonfinite": {"loss_ranks", ...}}."""
        self._append({"step": step, "nonfinite": ranks})

    def note_diagnostics(self, step: int, found: dict[str, Any]) -> None:
        """Notes what ``alignment.Diagnostics`` found: {"step", "diagnostics": {...}}."""
        self._append({"step": step, "diagnostics": found})

    def note_auto_stop(self, step: int, reason: str) -> None:
        """Notes that ``step`` became s_stop, and why: {"step", "auto_stop": reason}."""
        self._append({"step": step, "auto_stop": reason})

    def _elapsed(self) -> float:
        """Returns the seconds since the run's start, without those between its starts."""
        return time.perf_counter() - self._origin

    @property
    def _clock(self) -> Path:
        return self.path.with_name(CLOCK)

    def _append(self, line: dict[str, Any], path: Path | None = None) -> None:
        path = path or self.path
        with writing(path), path.open("a") as file:
            file.write(json.dumps(finite(line)) + "\n")


def finite(value: Any) -> Any:
    """JSON has neither NaN nor infinity: null stands for both, in lists and objects, too."""
    if isinstance(value, list):
        return [finite(part) for part in value]
    if isinstance(value, dict):
        return {key: finite(part) for key, part in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
