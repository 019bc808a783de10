"""torchtitan's CheckpointManager, made to outlive kills, full disks and damaged files."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict_saver import AsyncCheckpointerType, AsyncSaveResponse
from torchtitan.components.checkpoint import LR_SCHEDULER, OPTIMIZER, AsyncMode, CheckpointManager
from torchtitan.tools.logging import logger

from let_titan.checkpoint.checksums import ChecksumWriter, damaged_files
from let_titan.checkpoint.failures import in_order, reason
from let_titan.checkpoint.folders import (
    METADATA,
    remove_torn,
    set_aside,
    step_folders,
    tear,
    whole_checkpoints,
)
from let_titan.checkpoint.settings import restore_settings, settings_of
from let_titan.collectives import do_where, gathered, patient_group
from let_titan.device import HAS_ACCELERATOR
from let_titan.errors import ConfigError, RunError
from let_titan.upstream import save_in_serving_processes

STAGES_ONCE = torch.__version__ < "2.13"  # as versions, not as text
"""Whether a stager cannot be used again, as in torch 2.11 and 2.12 (pytorch issue 183413)."""

PATIENCE_S, LOOK_AGAIN_S = 120.0, 2.0
"""How long ranks wait until all see the same folder, and how often they look: NFS may show an old
listing for a minute."""


def new_stager() -> DefaultStager:
    """As torchtitan's (v0.2.2), less the pinned memory and the streams that a CPU does not have."""
    options = StagingOptions(
        use_pinned_memory=HAS_ACCELERATOR,
        use_shared_memory=True,
        use_async_staging=True,
        use_non_blocking_copy=HAS_ACCELERATOR,
    )
    return DefaultStager(options)


class LetCheckpointManager(CheckpointManager):
    """Saves with checksums, loads what is whole and intact, purges what is whole and old.

    Beyond torchtitan's manager (components/checkpoint.py, v0.2.2): torn folders are removed at the
    start and never counted by ``keep_latest_k``; a purge marks a checkpoint as torn before it
    deletes it; starting from an earlier step sets the later ones aside, so that no save writes into
    a whole folder; the optimizer's settings stay the config's; what cannot be written or read ends
    in a sentence.

    Attributes:
        exports: the folder of the run's exports, which are set aside with their checkpoints; None:
            it has none.
        note_saved: called with the step of every save, once it is written or on its way.
    """

    exports: Path | None = None
    note_saved: Callable[[int], None] | None = None

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._last_saved: Path | None = None
        if self.enable_staging:
            self.stager = new_stager()
            save_in_serving_processes()

    @property
    def path(self) -> Path:
        """The folder of the checkpoints."""
        return Path(self.folder)

    def load(self, step: int = -1) -> bool:
        """Loads ``step``, or the last whole checkpoint (-1).

        Returns:
            Whether there was one.

        Raises:
            ConfigError: it is damaged, or not this run's, or some ranks do not see it.
        """
        if not self.enable:
            return False
        if not self.load_only:
            do_where(dist.get_rank() == 0, self._tidy)
        step = self._agreed(step)
        source = self.path / f"step-{step}"
        if not self.path.exists() and self.initial_load_path:
            source = Path(self.initial_load_path)
        if (source / METADATA).is_file():
            self._verify(source)
        optimizers, schedulers = self.states[OPTIMIZER], self.states[LR_SCHEDULER]
        settings = settings_of(optimizers)
        with self._readable(source):
            loaded = super().load(step)
        if loaded:
            restore_settings(settings, optimizers, schedulers)
        if loaded and not self.load_only:
            do_where(dist.get_rank() == 0, lambda: self._set_later_aside(step))
        return loaded

    def save(self, curr_step: int, last_step: bool = False) -> None:
        """Saves when it is time.

        Raises:
            RunError: this save, or the one that ran in the background, could not be written.
        """
        before = self._last_saved
        with self._written(curr_step):
            super().save(curr_step, last_step)
        if self._last_saved != before and self.note_saved is not None:
            self.note_saved(curr_step)
        if last_step and self.enable and not self.load_only:
            self._purge_stale_checkpoints()  # which torchtitan leaves out after the last save

    def save_now(self, step: int) -> None:
        """Saves ``step`` in full whatever the interval, for a run that ends early."""
        if self.enable and self._last_saved != self.path / f"step-{step}":
            self.interval = 1
            self.save(step)
        self.wait()

    def wait(self) -> None:
        """Waits for a save in the background; one that failed ends in a RunError."""
        future = getattr(self, "save_future", None)
        if future is not None:
            with self._written(None):
                future.result()

    def last_good(self) -> Path | None:
        """Returns the checkpoint a new start would load, after a save in the background ended."""
        self.wait()
        found = whole_checkpoints(self.path) if self.enable else {}
        return found[max(found)] if found else None

    def dcp_save(
        self,
        state_dict: dict[str, Any],
        checkpoint_id: str,
        async_mode: AsyncMode,
        enable_garbage_collection: bool = False,
        to_hf: bool = False,
    ) -> Future | AsyncSaveResponse | None:
        """As torchtitan's, with checksums; files for Hugging Face (``to_hf``) are left to it."""
        self._last_saved = Path(checkpoint_id)
        if to_hf:
            return super().dcp_save(
                state_dict, checkpoint_id, async_mode, enable_garbage_collection, to_hf
            )
        writer = ChecksumWriter(checkpoint_id)
        if async_mode == AsyncMode.DISABLED:
            dcp.save(state_dict, storage_writer=writer)
            return None
        background: dict[str, Any] = {}
        if async_mode == AsyncMode.ASYNC_WITH_PINNED_MEM:
            if HAS_ACCELERATOR:  # the stager's own stream does not wait for the step's
                torch.accelerator.synchronize()
            # What is staged is on the host: nothing is copied ahead, for which every rank's saver
            # would begin a context on the node's first GPU. Without a stager torch sees to it.
            writer.per_thread_copy_ahead = 0
            if STAGES_ONCE:
                self.stager.close()
                self.stager = new_stager()
            background = {
                "async_checkpointer_type": AsyncCheckpointerType.PROCESS,
                "async_stager": self.stager,
            }
        return dcp.async_save(
            state_dict, storage_writer=writer, process_group=self.pg, **background
        )

    def _purge_stale_checkpoints(self) -> None:
        """Deletes all but the latest k whole checkpoints; each counts as torn from the start.

        One that may not be deleted, as another user's, is no reason to end a run.
        """
        if self.keep_latest_k > 0 and dist.get_rank() == 0:
            for path in list(whole_checkpoints(self.path).values())[: -self.keep_latest_k]:
                try:
                    tear(path)
                except OSError as error:
                    logger.warning(f"{path} cannot be deleted ({error.strerror}): it stays.")
                else:
                    self.purge_queue.put(str(path))

    @in_order()
    def _tidy(self) -> None:
        for path in remove_torn(self.path):
            logger.warning(f"{path} was cut short while it was saved or deleted: removed.")

    @in_order()
    def _set_later_aside(self, step: int) -> None:
        # Exports first: one that stayed would pass for that of a checkpoint to come.
        exports = self.exports and set_aside(self.exports, step, step_folders(self.path))
        if exports:
            logger.warning(
                f"The exports of steps after {step} are now in {exports}, which may be deleted."
            )
        target = set_aside(self.path, step)
        if target is not None:
            logger.warning(
                f"The run starts again from step {step}: the checkpoints after it are now in "
                f"{target}, which may be deleted."
            )

    def _agreed(self, step: int) -> int:
        """Returns the step to load (of -1: the last whole checkpoint's), once all ranks agree.

        Rank 0 has just tidied the folder, and a network's file system may show its old state to
        other nodes for some time: ranks would start from different checkpoints, or from none.
        """
        end = time.monotonic() + PATIENCE_S
        while True:
            last = step if step >= 0 else max(whole_checkpoints(self.path), default=-1)
            seen = gathered((last, last in whole_checkpoints(self.path), self.path.exists()))
            if all(view == seen[0] for view in seen):
                return last
            if gathered(time.monotonic() > end)[0]:
                other = next(rank for rank, view in enumerate(seen) if view != seen[0])
                raise ConfigError(
                    f"Rank {other} sees other checkpoints in {self.folder} than rank 0: give a "
                    "job.dump_folder on a file system that all nodes share."
                )
            time.sleep(LOOK_AGAIN_S)

    def _verify(self, folder: Path) -> None:
        """Compares the checkpoint's files with their checksums, each rank its share."""
        with patient_group() as group:
            found = gathered(damaged_files(folder, dist.get_rank(), dist.get_world_size()), group)
        damaged = sorted({name for names in found for name in names})
        if damaged:
            raise ConfigError(
                f"The checkpoint {str(folder)!r} is damaged: {', '.join(damaged)} "
                f"{'is' if len(damaged) == 1 else 'are'} missing or not as written. "
                f"{self._cure_without(folder)}"
            )

    def _cure_without(self, folder: Path) -> str:
        if folder.parent != self.path:
            return "Restore it, or start from another one with checkpoint.initial_load_path."
        older = [s for s, path in whole_checkpoints(self.path).items() if path != folder]
        if not older:
            return "There is no other one: restore the file, or start with another job.dump_folder."
        return f"Restore it, or start from another one with --checkpoint.load_step {older[-1]}."

    @contextmanager
    def _readable(self, folder: Path) -> Iterator[None]:
        try:
            yield
        except CheckpointException as error:
            own = folder.parent == self.path
            other = "job.dump_folder" if own else "checkpoint.initial_load_path"
            raise ConfigError(
                f"The checkpoint {str(folder)!r} does not fit this run ({reason(error)}): start "
                f"with the config it was made with, or with another {other}."
            ) from error

    @contextmanager
    def _written(self, step: int | None) -> Iterator[None]:
        """Turns what a save raises, now or in the background, into a sentence."""
        try:
            yield
        except (CheckpointException, OSError, RuntimeError) as error:
            self.save_future = None
            name = "A checkpoint" if step is None else f"The checkpoint of step {step}"
            last = self.last_good()
            held = f"{last} is whole" if last else "there is no older one"
            raise RunError(
                f"{name} could not be written to {self.folder} ({reason(error)}); {held}. "
                "Make room or mend the file system, then start the same command again."
            ) from error
