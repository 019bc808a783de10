"""Programs that are started and waited for, and do not outlive who waits."""

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
