"""One run at a time in a folder: a second start would take the first one's files for its past."""

import fcntl
import os
import socket
from pathlib import Path

from let_titan.collectives import do_where
from let_titan.disk import try_lock
from let_titan.errors import ConfigError, writing

NAME = ".lock"


class FolderLock:
    """Keeps other starts out of ``folder`` from ``take`` to ``release``, or to this process's end.

    Args:
        folder: ``job.dump_folder``.
        takes: whether this rank does so, as one must.
    """

    def __init__(self, folder: Path, takes: bool) -> None:
        self.folder, self.takes = folder, takes
        self._descriptor: int | None = None

    def take(self) -> None:
        """Takes the folder; every rank calls.

        Raises:
            ConfigError: another run has it; on all ranks.
            RunError: it cannot be written; on all ranks.
        """
        do_where(self.takes, self._take)

    def _take(self) -> None:
        path = self.folder / NAME
        with writing(path):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            # lockf is of this process alone. Data workers, which may outlive it by seconds, would
            # hold a flock, and with it a lock of the package filelock.
            if not try_lock(self._descriptor, fcntl.lockf):
                holder = os.read(self._descriptor, 1000).decode(errors="replace")
                self.release()
                raise ConfigError(
                    f"Another run is at work in {str(self.folder)!r} ({holder}): wait for its end, "
                    "or choose another job.dump_folder."
                )
            os.ftruncate(self._descriptor, 0)
            os.write(self._descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
