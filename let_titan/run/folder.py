"""What a run leaves beside its checkpoints: metrics.jsonl and summary.json (rank 0 writes)."""

import dataclasses
import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torchtitan.tools.logging import logger

from let_titan.errors import ConfigError, RunError
from let_titan.outcome import outcome
from let_titan.run.record import MetricsFile
from let_titan.run.summary import write_summary
from let_titan.run.teacher_cost import TeacherCost, cost_at_start
from let_titan.run.used_folder import cut, set_aside
from let_titan.runs import COMPLETED, EVALUATIONS, Line, kind_of, starts_of

FAILED = "failed"
"""How the exit state of a failed run begins."""

PHASES = {"let_phase": "With the teacher", "after": "Without a teacher"}


class RunFolder:
    """Keeps a run's files in step with it.

    Args:
        folder: the run's, ``job.dump_folder``.
        file: its metrics.jsonl; None on ranks that do not write.
        facts: what does not change during the run: ``describe_run``'s, a step's tokens, a token's
            FLOPs.

    Attributes:
        cost: counts the teacher's FLOPs, where the file is written.
    """

    def __init__(self, folder: Path, file: MetricsFile | None, facts: dict[str, Any]) -> None:
        self._path = folder / "summary.json"
        self.file = file
        self.facts = facts
        self.cost = TeacherCost()
        self._begun = False

    def begin(
        self,
        step: int,
        teacher: dict[str, Any] | None,
        tokens: int = 0,
        validates: bool = True,
    ) -> None:
        """Continues the files after ``step`` (0: starts them).

        Args:
            step: the steps that are done.
            teacher: its facts, while there is one.
            tokens: which the teacher has read so far.
            validates: whether this start validates after ``step`` before it trains.
        """
        self._begun = True
        self.facts["teacher"] = teacher
        if self.file is None:
            return
        goes_on = step > 0 and self._path.exists()
        earlier = json.loads(self._path.read_text()) if goes_on else {}
        lines = self.file.lines() if step > 0 else []
        self.cost = cost_at_start(step, tokens, teacher, earlier, lines)
        here = kind_of(self.facts.get("hardware", {}))
        this = {"step": step, "world_size": self.file.world_size, "hardware": here}
        starts = [{**this, "teacher_cost": dataclasses.asdict(self.cost)}]
        if goes_on:
            # Past s_stop no teacher is loaded any more: its facts are still the run's.
            self.facts["teacher"] = teacher or earlier["teacher"]
            self._keep_validation(earlier)
            # Starts of an earlier version do not say their hardware: it was the whole run's.
            before = {"hardware": kind_of(earlier.get("hardware", {}))}
            kept = (start for start in starts_of(earlier) if start["step"] < step)
            starts = [{**before, **start} for start in kept] + starts
            if "lost_before" in earlier:
                self.facts["lost_before"] = earlier["lost_before"]
        elif any(line["step"] < step for line in lines):
            self._note_lost(step, lines)
        self.facts["starts"] = starts
        if step == 0:
            set_aside(self._path.parent)
        # Scores of later steps are of checkpoints that are no longer this run's.
        cut(self._path.with_name(EVALUATIONS), lambda line: line["step"] <= step)
        self.file.resume(step, validates)
        self._write("running")

    def _keep_validation(self, earlier: dict[str, Any]) -> None:
        """If this start does not validate, keeps what validation read in earlier starts, and how.

        The run's curve is of that; a config without validation may name other sequences, or none.
        """
        if self.facts.get("validation_data") or not earlier.get("validation_data"):
            return
        self.facts["validation_data"] = earlier["validation_data"]
        how = {**earlier["config"]["validation"], "enable": False}
        self.facts["config"] = {**self.facts["config"], "validation": how}

    def _note_lost(self, step: int, lines: Iterable[Line]) -> None:
        """Says that there were starts before, of which a summary that is gone knew.

        So it did of the teacher, if that has left: the lines know that there was one, not which.
        """
        self.facts["lost_before"] = step
        taught = any(line.get("teacher_active") for line in lines if line["step"] <= step)
        if taught and self.facts["teacher"] is None:
            self.facts["teacher"] = {"unknown": True}

    def is_unfinished(self) -> bool:
        """Whether the summary does not say that the run was completed; every rank calls."""
        found = [False]
        if self.file is not None:
            known = json.loads(self._path.read_text()) if self._path.exists() else {}
            found = [known.get("exit_state") != COMPLETED]
        dist.broadcast_object_list(found)
        return found[0]

    def end(self, exit_state: str) -> None:
        """Writes the outcome: COMPLETED, "stopped at step N by a signal" or a failure.

        A run that found nothing left to do leaves its folder as it was.
        """
        if self.file is None or not self._begun:
            return
        try:
            self._write(exit_state)
        except RunError as error:  # what ended the run is to be raised, not this
            logger.error(str(error))
            return
        for phase, cost in self._outcome()["throughput"].items():
            if cost is not None:
                logger.info(
                    f"{PHASES[phase]}: {cost['tokens_per_s']:,.0f} tokens/s, "
                    f"{cost['peak_memory_gib']:.2f} GiB at most"
                )

    def fail(self, error: BaseException) -> None:
        """Notes in the summary why the run failed, from whichever rank the error was raised on.

        That rank does so before it exits: the others merely see a collective fail, or hang in one
        until they are killed.
        """
        if not self._begun:
            return
        try:
            earlier = json.loads(self._path.read_text())
        except (OSError, ValueError):  # of a node that does not share the folder, or a full disk
            earlier = {}
        told, rank = earlier.get("exit_state", ""), dist.get_rank()
        state = f"{FAILED}{f' on rank {rank}' if rank else ''}: {type(error).__name__}: {error}"
        if self.file is not None:
            ours = isinstance(error, (ConfigError, RunError))
            self.end(told if told.startswith(FAILED) and not ours else state)
        elif told == "running":
            with suppress(RunError):  # what ended the run is to be raised, not this
                write_summary(self._path, {**earlier, "exit_state": state})

    def log_teacher_left(self, step: int, before_gib: float, after_gib: float) -> None:
        """Logs what the teacher's leaving freed, and how fast the LET phase was."""
        if self.file is None:
            return
        cost = self._outcome()["throughput"]["let_phase"]
        rate = f", {cost['tokens_per_s']:,.0f} tokens/s with it" if cost else ""
        logger.info(
            f"Step {step}: the teacher has left. Memory {before_gib:.2f} GiB before, "
            f"{after_gib:.2f} GiB after{rate}"
        )

    def note_nonfinite(self, step: int, ranks: dict[str, list[int]]) -> None:
        """Notes a step that was left out because a loss or gradient was not finite."""
        if self.file is not None:
            self.file.note_nonfinite(step, ranks)

    def note_saved(self, step: int) -> None:
        """Notes the time at which the checkpoint of ``step`` was saved, for a resume from it."""
        if self.file is not None and self._begun:
            self.file.note_saved(step)

    def note_auto_stop(self, step: int, reason: str) -> None:
        """Notes why ``step`` is the last with a teacher, after it became the plan's s_stop."""
        if self.file is not None:
            self.file.note_auto_stop(step, reason)
            self._write("running")  # a run that is killed never comes to its end's summary
            logger.info(f"Step {step} is s_stop: {reason}.")

    def _write(self, exit_state: str) -> None:
        write_summary(self._path, {**self.facts, **self._outcome(), "exit_state": exit_state})

    def _outcome(self) -> dict[str, Any]:
        assert self.file is not None
        return outcome(self.file.lines(), [start["step"] for start in self.facts["starts"]])
