"""A rank's helper processes: deaf to signals that ask the rank to stop, and gone when it is gone.

torchrun signals a rank's whole process group, a terminal the foreground's, and Slurm every process
of a job. The rank takes that as a request (``stop``): it finishes its step and saves, for which it
still needs the processes that read its data and write its checkpoint.

A helper may not simply ignore SIGTERM, since that is how its own rank ends it: when a process
exits, multiprocessing terminates its children and waits for them without limit. So helpers block
the signals from birth on, and a thread takes each one and looks at who sent it. (torch's data
workers tell senders apart, too, by a handler in C, but die of anybody else's signal.)
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing import resource_tracker

from torch.utils.data import DataLoader

from let_titan.stop import SIGNALS

PERIOD = 1.0
"""Seconds between two looks at whether the rank is still there."""


@contextmanager
def signals_blocked() -> Iterator[None]:
    """While active, the processes that this thread starts have the signals blocked.

    A new process needs seconds before it can block them itself. A signal to this process is not
    lost meanwhile, as it would be if it were ignored: another thread takes it, or it waits.
    """
    resource_tracker.ensure_running()  # in Python 3.11 its start would unblock them
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def serve_rank() -> None:
    """Makes this helper process end when its rank signals it or is gone, and for nobody else."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    threading.Thread(target=_watch, args=(os.getppid(),), daemon=True).start()


def _watch(starter: int) -> None:
    """Ends the process when its rank sends a signal or is gone.

    Args:
        starter: the parent's id as far as the system knows: under Python's fork server that is the
            server. Both it and the rank are watched, since the rank's pipe may outlive it in other
            helpers, and the rank may have gone before this process could ask for its parent.
    """
    rank = multiprocessing.parent_process()
    assert rank is not None
    while rank.is_alive() and os.getppid() == starter:
        heard = signal.sigtimedwait(SIGNALS, PERIOD)
        if heard is not None and heard.si_pid == rank.pid:
            break
    # No exception, since the main thread may wait forever in a pipe that nobody reads; and code 0,
    # since after a signal or another code torch would raise in the rank that its worker was killed.
    os._exit(0)


def serve_rank_as_worker(then: Callable[[int], None] | None, worker: int) -> None:
    """As ``serve_rank``, at the start of a data worker.

    Args:
        then: the data set's own ``worker_init_fn``.
        worker: the worker's number.
    """
    serve_rank()
    if then is not None:
        then(worker)


def serve_rank_in_workers(loader: DataLoader) -> None:
    """Makes all workers that ``loader`` will start call ``serve_rank``, as forks of the rank.

    From Python 3.14 on, workers are by default children of a fork server, to which neither our data
    sets nor torchtitan's can be pickled, and which would import torch anew. Unless they start
    within ``signals_blocked``, a signal in their first milliseconds still ends them.
    """
    if loader.num_workers:  # torch takes a context only then
        loader.multiprocessing_context = "fork"
    loader.worker_init_fn = partial(serve_rank_as_worker, loader.worker_init_fn)
