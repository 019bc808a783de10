"""One run's folder, read back: metrics.jsonl, summary.json and, where there is one,
evaluations.jsonl. Standard library only."""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, TypeGuard

Line = dict[str, Any]

FILES = ("metrics.jsonl", "summary.json")

COMPLETED = "completed"
"""The exit state of a run that came to its last step."""

EVALUATIONS = "evaluations.jsonl"
"""What let_titan.evaluate found of checkpoints: ``step``, and ``tasks`` with ``average``, or
``perplexity``, or both, a line."""

CLOCK = "clock.jsonl"
"""The time at which each checkpoint was saved, ``step`` and ``elapsed_s`` a line."""

KIND = ("device", "device_name", "cpu", "cpu_threads")
"""Of summary.json's ``hardware``, what times depend on beside the number of devices."""

WRITTEN_ANEW = (
    "move it away and resume the run, which writes it anew (from an older step, by "
    "checkpoint.load_step, where the last checkpoint holds the model alone)."
)
"""What to do about a summary.json that cannot be read."""

SUMMARY_KEYS = ("config", "hardware", "let_plan", "parameters", "versions")


@dataclass(frozen=True)
class Run:
    """One run, as ``let_titan.train`` left it.

    Attributes:
        name: the folder's name.
        train: train lines in the order of their steps: ``loss`` in nats per token; ``tokens``,
            ``elapsed_s`` and the FLOPs count from the start of the run.
        validation: validation lines in the order of their steps, ``val_loss`` in nats per token,
            NaN where the file has null.
        summary: summary.json.
        evaluations: what is known of each evaluated step, in the order of steps.
    """

    name: str
    train: list[Line]
    validation: list[Line]
    summary: dict[str, Any]
    evaluations: list[Line] = field(default_factory=list)

    @classmethod
    def load(cls, folder: str | Path) -> "Run":
        """Reads ``folder``.

        Raises:
            ValueError: a file is missing or damaged; the message names it and the cure.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise ValueError(f"{folder} is not a folder: give the job.dump_folder of a run.")
        train, validation = sort_lines(read_lines(folder / "metrics.jsonl"))
        if not train or not validation:
            raise ValueError(
                f"{folder / 'metrics.jsonl'} has no {'validation' if train else 'train'} line: "
                "let the run go on until it has logged and validated once."
            )
        return cls(
            folder.resolve().name,
            train,
            validation,
            read_summary(folder / "summary.json"),
            read_evaluations(folder / EVALUATIONS),
        )

    @property
    def curve(self) -> list[tuple[int, float]]:
        """(step, validation loss in nats per token)."""
        return [(line["step"], line["val_loss"]) for line in self.validation]

    @property
    def starts(self) -> list[int]:
        """The steps after which the run was started: 0, and those of its resumes."""
        return [start["step"] for start in starts_of(self.summary)]

    def devices(self, step: int) -> int:
        """Returns how many devices took step number ``step``; a resume may change it."""
        starts = [start for start in starts_of(self.summary) if start["step"] < step]
        return (starts or starts_of(self.summary))[-1]["world_size"]

    def fact(self, path: str) -> Any:
        """Returns ``summary["a"]["b"]`` for "a.b", None where a part is missing or null.

        A key of the objects in a list gives "1, 2, ...".
        """
        value: Any = self.summary
        for key in path.split("."):
            if isinstance(value, list):
                value = ", ".join(str(item[key]) for item in value)
            else:
                value = value.get(key) if isinstance(value, dict) else None
        return value


def is_complete(folder: Path) -> bool:
    """Whether ``folder`` has a run that came to its last step: a signal may end one before."""
    summary = folder / "summary.json"
    return summary.is_file() and json.loads(read_text(summary))["exit_state"] == COMPLETED


def kind_of(hardware: dict[str, Any]) -> dict[str, Any]:
    """Returns what of summary.json's ``hardware`` is of ``KIND``."""
    return {key: hardware[key] for key in KIND if key in hardware}


def stretches(summary: dict[str, Any]) -> list[tuple[int, int, dict[str, Any]]]:
    """Returns (step, devices, kind) of all that a run was trained on in turn, after that step.

    A start on the same devices continues the stretch of the one before. Starts of old summaries
    that do not name their hardware had that of the whole run.
    """
    whole = kind_of(summary.get("hardware", {}))
    found: list[tuple[int, int, dict[str, Any]]] = []
    for start in starts_of(summary):
        on = start["world_size"], start.get("hardware") or whole
        if not found or found[-1][1:] != on:
            found.append((start["step"], *on))
    return found


def starts_of(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns {step, world_size, ...} of every start of a run; one, where nothing is said."""
    whole = {"step": 0, "world_size": summary.get("hardware", {}).get("world_size", 1)}
    return summary.get("starts") or [whole]


def sort_lines(lines: Iterable[Line]) -> tuple[list[Line], list[Line]]:
    """Returns the train lines and the validation lines; lines of other kinds are passed over."""
    lines = list(lines)
    train = by_step(line for line in lines if "loss" in line)
    validation = by_step(
        {**line, "val_loss": math.nan if line["val_loss"] is None else line["val_loss"]}
        for line in lines
        if "val_loss" in line
    )
    return train, validation


def is_number(value: Any) -> TypeGuard[float]:
    """Whether ``value`` is a finite number: a diverged run logs NaN or null."""
    return isinstance(value, int | float) and math.isfinite(value)


def read_lines(path: Path) -> list[Line]:
    """Reads JSON lines; a torn last one is left out, since a killed run leaves one."""
    lines: list[Line] = []
    texts = read_text(path).split("\n")  # the last one is empty, or torn
    for number, text in enumerate(texts, start=1):
        try:
            line = json.loads(text)
        except json.JSONDecodeError as error:
            if number == len(texts):
                break
            raise ValueError(
                f"{path}, line {number}, is not JSON ({error.msg}): remove that line."
            ) from None
        if not isinstance(line, dict) or not isinstance(line.get("step"), int):
            raise ValueError(f"{path}, line {number}, has no step: remove that line.")
        lines.append(line)
    return lines


def read_evaluations(path: Path) -> list[Line]:
    """Returns a line a step, [] without the file.

    A step that was evaluated again has the tasks of all evaluations, each with its latest result;
    its average is over all of them.
    """
    found: dict[int, Line] = {}
    for line in read_lines(path) if path.is_file() else []:
        found[line["step"]] = together(found.get(line["step"], {}), line)
    return [found[step] for step in sorted(found)]


def together(earlier: Line, later: Line) -> Line:
    """Returns one evaluation of two of the same step."""
    both = {**earlier, **later}
    before, now = (line.get("tasks") or {} for line in (earlier, later))
    if now and before.keys() - now.keys():
        both["tasks"] = {**before, **now}
        values = [task.get(task["metric"]) for task in both["tasks"].values()]
        both["average"] = fmean(values) if all(map(is_number, values)) else None
    return both


def read_summary(path: Path) -> dict[str, Any]:
    """Reads summary.json and makes sure that it has what a comparison needs."""
    try:
        summary = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON ({error.msg}): {WRITTEN_ANEW}") from None
    missing = [key for key in SUMMARY_KEYS if key not in summary]
    if missing:
        raise ValueError(
            f"{path} lacks {', '.join(missing)}: repeat the run with this version of let_titan."
        )
    return summary


def read_text(path: Path) -> str:
    if not path.is_file():
        raise ValueError(
            f"{path} is missing: give the folder of a run that has ended, or resume the run."
        )
    return path.read_text(encoding="utf-8", errors="replace")


def by_step(lines: Iterable[Line]) -> list[Line]:
    """Returns lines in rising order of steps: a line that goes back replaces those it repeats.

    A resumed run cuts its file at the checkpoint; where it could not, steps would count twice.
    """
    kept: list[Line] = []
    for line in lines:
        while kept and kept[-1]["step"] >= line["step"]:
            kept.pop()
        kept.append(line)
    return kept
