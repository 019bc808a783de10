"""Runs a program to its end; it does not outlive the process that waits for it."""

import subprocess
from collections.abc import Sequence
from typing import Any


def run_to_end(command: Sequence[str], **options: Any) -> int:
    """Runs a program; returns its exit code.

    What ends the wait early ends the program, too: by SIGTERM, which a launcher passes on.

    Args:
        command: the program and its arguments.
        options: of ``subprocess.Popen``.
    """
    with subprocess.Popen(command, **options) as process:
        try:
            return process.wait()
        except BaseException:
            process.terminate()
            raise
