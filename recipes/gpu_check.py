"""What only a GPU can show, in a time that is given: python recipes/gpu_check.py --seconds 570

Runs the tests marked gpu and the overhead benchmark (LET and baseline in turn), each part in
processes of its own that are stopped at a limit, and writes FOLDER/report.md after each with a
sentence on every part: how it went, or why it is not there. Exit code 1: a part failed, the tests
did not end, or the 1.4B student's overhead is not there. scripts/gpu_check.sh brings the
environment.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS_NEED = ("pytest>=8", "hypothesis")
NOT_NEEDED = ("wandb",)
"""Dependencies that nothing here imports, and a GPU's machine may lack: no run asks for wandb."""
SECONDS = 570
"""What the parts' limits are made for."""
TO_STOP = 15
"""Seconds by which a benchmark is told to end before its limit."""
TO_REPORT = 10
"""Seconds that a part which is interrupted has to say what it has found: pytest, of failures."""


@dataclass(frozen=True)
class Part:
    """One thing to run.

    Attributes:
        command: its arguments; "{seconds}" is the time to plan with, "{out}" the results' folder.
        at_most: seconds it may take.
        at_least: it is not begun with fewer left.
        needed: whether the check has failed without it; a part that fails is one in any case.
        result: a glob below the results' folder of what it leaves, if that counts where the part is
            stopped at its limit.
        capability: of the GPU, below which it cannot run.
    """

    name: str
    command: Sequence[str]
    at_most: int
    at_least: int
    needed: bool = False
    result: str = ""
    capability: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Outcome:
    """What became of a part.

    Attributes:
        sentence: the end of one.
        failed: it ran and said so.
        there: what it is for has been found out.
    """

    sentence: str
    failed: bool = False
    there: bool = False


def overhead(
    setting: str, at_most: int, arms: str = "LET", folder: str = "overhead", needed: bool = False
) -> Part:
    command = [sys.executable, "scripts/bench_overhead.py", setting, "--arms", *arms.split()]
    command += ["--seconds", "{seconds}", "--out", f"{{out}}/{folder}"]
    name = f"overhead {setting}" if arms == "LET" else f"overhead {setting}, {arms}"
    return Part(name, command, at_most, 90, needed, f"{folder}/{setting}-*/results.json")


def files_with_gpu_tests() -> list[str]:
    """Returns the files of tests that have some marked gpu: no other is imported for nothing."""
    files = sorted((ROOT / "tests").glob("test_*.py"))
    return [f"tests/{file.name}" for file in files if "mark.gpu" in file.read_text()]


TESTS = [sys.executable, "-m", "pytest", "-v", "-m", "gpu", "-rs", "-p", "no:cacheprovider"]
TESTS += ["--durations=10", *files_with_gpu_tests()]
PARTS = (
    Part("tests", TESTS, at_most=290, at_least=30, needed=True),
    overhead("1.4B", 250, needed=True),
    replace(overhead("1.4B_float8", 120), capability=(8, 9)),
    overhead("1.4B", 240, "RKD SALT", "distillation"),
    overhead("350M", 150),
)
NAMES = tuple(repr(part.name) for part in PARTS)


def run(part: Part, seconds: float, out: Path) -> Outcome:
    """Runs a part with ``seconds`` left; its output goes to log.txt."""
    for earlier in out.glob(part.result) if part.result else ():
        earlier.unlink()
    limit = int(min(part.at_most, seconds))
    if limit < part.at_least:
        left = max(0, int(seconds))
        return Outcome(f"left out: it wants {part.at_least} s, and {left} s were left")
    values = {"seconds": limit - TO_STOP, "out": out}
    command = [argument.format(**values) for argument in part.command]
    own = os.environ.get("PYTHONPATH", "")
    path = os.pathsep.join([str(ROOT), *filter(None, [own])])  # let_titan need not be installed
    environment = {**os.environ, "PYTHONPATH": path}
    begin = time.monotonic()
    with (out / "log.txt").open("a") as log:
        log.write(f"\n=== {part.name}: {' '.join(command)}\n")
        log.flush()
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            stop(process)
            written = bool(part.result) and any(out.glob(part.result))
            lost = "what it had written is kept" if written else "nothing of it is kept"
            return Outcome(f"stopped at its limit of {limit} s; {lost}", there=written)
    took = f"in {time.monotonic() - begin:.0f} s"
    if code:
        return Outcome(f"FAILED {took} (exit code {code}): see log.txt", failed=True)
    return Outcome(f"done {took}", there=not part.result or any(out.glob(part.result)))


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ends a process with those that it started, as Ctrl-C does and then as it must."""
    os.killpg(process.pid, signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        process.wait(TO_REPORT)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def given(parts: Sequence[Part], seconds: float) -> list[Part]:
    """Returns ``parts`` with more time where there is more: of what is beyond ``SECONDS`` each has
    its share, and a part for whose end no other waits has all."""
    if len(parts) == 1:
        return [replace(parts[0], at_most=int(seconds))]
    more = max(1.0, seconds / SECONDS)
    return [replace(part, at_most=int(more * part.at_most)) for part in parts]


def check(
    parts: Sequence[Part],
    seconds: float,
    out: Path,
    machine: Sequence[str],
    capability: tuple[int, int] = (9, 0),
) -> bool:
    """Runs all parts; returns whether none failed and those that are needed are there."""
    end, good = time.monotonic() + seconds, True
    lines = ["# One GPU, checked", "", *machine, ""]
    for part in parts:
        if capability < part.capability:
            wants, has = (".".join(map(str, each)) for each in (part.capability, capability))
            outcome = Outcome(f"left out: it needs compute capability {wants}, this GPU has {has}")
        else:
            outcome = run(part, end - time.monotonic(), out)
        lines.append(f"- {part.name}: {outcome.sentence}.")
        good &= not outcome.failed and (outcome.there or not part.needed)
        print(lines[-1], flush=True)
        (out / "report.md").write_text("\n".join(lines) + "\n")
    return good


def needs() -> list[str]:
    """Returns what pip must find: our dependencies, and what the tests import."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    ours = (need for need in project["dependencies"] if need not in NOT_NEEDED)
    return [*ours, *TESTS_NEED]


def main(args: list[str] | None = None) -> int:
    flags = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    flags.formatter_class = argparse.RawDescriptionHelpFormatter
    flags.add_argument("--seconds", type=float, default=SECONDS)
    flags.add_argument("--out", type=Path, help="recipes/results/gpu-DEVICE where none is given")
    flags.add_argument("--only", default="", help="the parts whose name has this in it")
    flags.add_argument("--needs", action="store_true", help="print what to install, and end")
    own = flags.parse_args(args)
    if own.needs:
        print("\n".join(needs()))
        return 0
    chosen = [part for part in PARTS if own.only in part.name]
    if not chosen:
        flags.error(f"--only {own.only}: no part's name has that; they are {', '.join(NAMES)}")
    import torch

    device = torch.cuda.get_device_name()
    slug = re.sub("[^a-z0-9]+", "-", device.lower())
    out = (own.out or ROOT / "recipes" / "results" / f"gpu-{slug}").absolute()
    out.mkdir(parents=True, exist_ok=True)
    (out / "log.txt").unlink(missing_ok=True)
    machine = [f"`bash scripts/gpu_check.sh` on {device}; torch {torch.__version__}."]
    capability = torch.cuda.get_device_capability()
    return 0 if check(given(chosen, own.seconds), own.seconds, out, machine, capability) else 1


if __name__ == "__main__":
    sys.exit(main())
