"""torchrun --nproc_per_node N -m let_titan.train --job.config_file FILE.toml"""

import os
import socket
import sys
import time
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from typing import NoReturn

import torch.distributed as dist
from torchtitan.tools.logging import init_logger, logger

from let_titan.checks import check_config, is_over
from let_titan.collectives import gathered
from let_titan.config import LetConfigManager, LetJobConfig
from let_titan.data.loader import PileLoader
from let_titan.errors import ConfigError, LocalConfigError, RunError
from let_titan.export.at_end import export_at_end
from let_titan.launch import complete_environment, rendezvous_errors
from let_titan.out_of_memory import memory_errors
from let_titan.runs import COMPLETED
from let_titan.stop import exit_on_sigterm
from let_titan.trainer import LetTrainer
from let_titan.upstream import check_version

__all__ = ["LetTrainer", "main", "run"]

SILENT_S = 30.0
"""How long the other ranks wait for rank 0 to print its sentence before they exit."""


def main(args: list[str] | None = None) -> None:
    """Parses the config, checks it and runs.

    A mistake in the user's input ends in one sentence and exit code 2. What stops a sound run (a
    full disk, a loss that is not finite) ends in one sentence and exit code 1.
    """
    init_logger()
    try:
        check_version()
        complete_environment()
        with open(os.devnull, "w") as devnull, ExitStack() as stack:
            if os.environ.get("RANK", "0") != "0":  # only rank 0 prints
                stack.enter_context(redirect_stderr(devnull))
                stack.enter_context(redirect_stdout(devnull))
            try:
                config = LetConfigManager().parse_args(args)
            except SystemExit:  # tyro's, whose message rank 0 prints
                wait_for_rank_0()
                raise
        check_config(config)
        if run(config):
            with exit_on_sigterm():
                export_at_end(config)
    except ConfigError as error:
        refuse(error, 2)
    except RunError as error:
        refuse(error, 1)


def run(config: LetJobConfig) -> bool:
    """Trains, or writes a seed checkpoint, and leaves the run's folder complete.

    Returns:
        Whether an export may follow: the run is completed, and no signal has asked it to stop.
    """
    if is_over(config):
        logger.info(f"The run in {config.job.dump_folder} is complete: nothing is left to do.")
        return True
    trainer: LetTrainer | None = None
    with ExitStack() as stack:
        try:
            with rendezvous_errors(), memory_errors(config):
                trainer = LetTrainer(config)
            if config.checkpoint.create_seed_checkpoint:
                trainer.checkpointer.save(curr_step=0, last_step=True)
            else:
                # Until the folder is complete: a launcher may repeat its signal at any time.
                stack.enter_context(trainer.stop_request.listening())
                with memory_errors(config):
                    trainer.train()
                note_skipped_lines(trainer)
            exit_state = exit_state_of(trainer)
            stopped = any(gathered(trainer.guard.stop or trainer.stop_request()))
            trainer.run_folder.end(exit_state)
        except BaseException as error:  # torch's CheckpointException is no Exception
            if trainer is not None:
                trainer.run_folder.fail(error)
            raise
        finally:
            if trainer is not None:
                trainer.close()
    dist.destroy_process_group()
    if exit_state != COMPLETED:
        return False
    if not stopped and not trainer.stop_request():
        return True
    # A queue whose time is up would not let the export end.
    if config.export.enable and os.environ.get("RANK", "0") == "0":  # the rank that would export
        logger.info(
            "The run is complete, and after a signal its export is left out: start the same "
            "command again, which only exports, or use python -m let_titan.export."
        )
    return False


def note_skipped_lines(trainer: LetTrainer) -> None:
    """Puts the bad lines that were skipped into the summary's facts; every rank calls."""
    if isinstance(trainer.dataloader, PileLoader):
        trainer.run_folder.facts["data"]["skipped"] = trainer.dataloader.skipped()


def exit_state_of(trainer: LetTrainer) -> str:
    """Returns how a run that did not fail has ended; after a signal, logs how to go on."""
    config = trainer.job_config
    if trainer.step >= config.training.steps or not trainer.guard.stop:
        return COMPLETED
    exit_state = f"stopped at step {trainer.step} by a signal"
    goes_on = "the same command goes on from there"
    if not config.checkpoint.enable:
        goes_on = "nothing is saved (checkpoint.enable = false), and a new start begins anew"
    elif config.checkpoint.load_only:
        goes_on = "nothing is saved (checkpoint.load_only = true), and a new start begins as it did"
    logger.info(f"Run {exit_state}: {goes_on}.")
    return exit_state


def refuse(error: ConfigError | RunError, code: int) -> NoReturn:
    """Prints the sentence on rank 0, and exits with ``code`` on every rank.

    Rank 0 may not know what is wrong with another machine (``LocalConfigError``): that machine's
    first process prints it, or each of its processes where the launcher sets no LOCAL_WORLD_SIZE.
    """
    first = os.environ.get("LOCAL_RANK") == "0" or "LOCAL_WORLD_SIZE" not in os.environ
    if os.environ.get("RANK", "0") == "0":
        print(f"let_titan: {error}", file=sys.stderr, flush=True)
    elif isinstance(error, LocalConfigError) and first:
        print(f"let_titan on {socket.gethostname()}: {error}", file=sys.stderr, flush=True)
    elif not error.told:
        wait_for_rank_0()
    sys.exit(code)


def wait_for_rank_0() -> None:
    """On other ranks, waits: as soon as one exits, torchrun kills the rest, rank 0 among them."""
    if os.environ.get("RANK", "0") != "0":
        time.sleep(SILENT_S)


if __name__ == "__main__":
    main()
