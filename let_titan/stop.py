"""SIGTERM and SIGINT (a queue's time limit, Ctrl-C) as a request to stop after this step.

A program without steps ends by an exception, at SIGTERM as at Ctrl-C.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """Which signal asked this rank to stop, if any.

    A launcher may pass on a signal that the process already had, so a second one changes nothing;
    SIGQUIT and SIGKILL end a process at once.
    """

    name: str | None = None

    def __call__(self) -> bool:
        return self.name is not None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """While active, a signal only leaves a note of its name."""
        before = {number: signal.signal(number, self._note) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.name is None:
            self.name = signal.Signals(number).name
            # Not through a logger: the handler may run in the middle of a write of its own.
            os.write(2, f"let_titan: {self.name}, so this step is the last one\n".encode())


@contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """While active, SIGTERM raises SystemExit, so that cleanup runs; unless it has a handler."""
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
