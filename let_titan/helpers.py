"""A rank's helper processes: deaf to what asks the rank to stop, and gone when it is gone.

torchrun signals the whole process group of a rank, a terminal that of the foreground, and Slurm
every process of a job. The rank takes that as a request (``stop``): it finishes its step and
saves, for which it needs the processes that read its data and write its checkpoint.

A helper may not simply ignore SIGTERM, since that is how its rank ends it: multiprocessing
terminates what is left when a process exits, and waits for it without limit. So the signals are
blocked, from birth on, and a thread takes each and looks who sent it (torch's data workers make
the same difference, by a handler in C, but die of any other sender's).
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
def born_deaf() -> Iterator[None]:
    """While active, the processes that this thread starts have the signals blocked.

    A new process needs seconds until it can see to it by itself. Blocked here they are not lost:
    another thread of this process takes them, or they wait until the end. Ignored they would be.
    """
    resource_tracker.ensure_running()  # in Python 3.11 its start would unblock them
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def serve_rank() -> None:
    """Makes this process, which a rank started, end by its rank's word or end and no other's."""
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
    # Not by an exception: the main thread may wait for ever in a pipe that nobody reads. Not by a
    # signal or another code either: torch would raise in the rank that its worker was killed.
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


def make_workers_deaf(loader: DataLoader) -> None:
    """Has all workers that ``loader`` will start serve their rank.

    Where they do not start in ``born_deaf`` a signal in their first milliseconds still ends them.
    """
    loader.worker_init_fn = partial(serve_rank_as_worker, loader.worker_init_fn)
