"""python scripts/bench_overhead.py SETTING [--rounds 3] [--seconds S]

What the teacher costs, against a baseline that differs in nothing else: the arms run in turn, round
after round, another one first in each, every run in a process of its own. In the first half of a
run LET and SALT have their teacher, in the second they do not; RKD keeps it. Step time by phase,
peak memory, each model's own MFU, and the ratio to the baseline beside what the FLOPs allow. "cpu"
needs no GPU; "1.4B", "350M" and "1.4B_float8" want one with 80 GB. Nothing is downloaded.
"""

import argparse
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "recipes"))

from lab.launch import flags  # noqa: E402
from overhead.result import summarise  # noqa: E402
from overhead.setting import SETTINGS, make  # noqa: E402
from overhead.text import as_markdown  # noqa: E402
from tqdm import tqdm  # noqa: E402

from let_titan.launch import MEETING, PLACE  # noqa: E402

WORKER = ROOT / "recipes" / "overhead" / "timed_train.py"


def arms(half: int, states: Path) -> dict[str, dict[str, str]]:
    """Returns each arm's config keys.

    Args:
        half: the step after which LET and SALT are plain.
        states: a folder that LET_writing finds empty and LET_reading full.
    """
    off = {"let.enable": "false"}
    let = {"let.enable": "true", "let.s_stop": str(half)}
    return {
        "baseline": off,
        "LET": let,
        "LET_writing": {**let, "teacher.cache": str(states)},
        "LET_reading": {**let, "teacher.cache": str(states)},
        "RKD": {**off, "distill.method": "rkd"},
        "SALT": {**off, "distill.method": "salt", "distill.n_kd": str(half)},
    }


def in_turn(names: list[str], done: int) -> list[str]:
    """Returns the arms in the order of the round after ``done``: each begins one in its turn.

    Were the baseline always first, a drift of the machine would be a drift of its ratios. What
    reads states comes after what writes them.
    """
    first = done % len(names)
    order = names[first:] + names[:first]
    if {"LET_writing", "LET_reading"} <= set(order):
        writing, reading = sorted(map(order.index, ("LET_writing", "LET_reading")))
        order[writing], order[reading] = "LET_writing", "LET_reading"
    return order


def timed(config: Path, warmup: int, keys: dict[str, str]) -> dict[str, Any]:
    """Trains once in a process of its own; returns what it wrote."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run.json"
        keys = {**keys, "job.dump_folder": folder}
        command = [sys.executable, str(WORKER), str(out), str(warmup)]
        command += ["--job.config_file", str(config), *flags(keys)]
        # A launcher's variables would make the run one rank of many.
        env = {key: value for key, value in os.environ.items() if key not in (*PLACE, *MEETING)}
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
        return json.loads(out.read_text())


WARM = 0.7
"""Of the first round, which alone compiles for an empty cache, what the second is reckoned at."""


def fits(done: int, elapsed: float, seconds: float) -> bool:
    """Whether one more round is likely to end within ``seconds``, after those ``done``."""
    if done == 0:
        return True
    return elapsed + elapsed * (WARM if done == 1 else 1 / done) <= seconds


def measure(
    name: str, rounds: int, half: int, chosen: list[str], work: Path, seconds: float = math.inf
) -> Iterator[dict[str, Any]]:
    """Runs the rounds, as many as fit ``seconds``, but one.

    Yields:
        after each round what results.json then holds.
    """
    begin = time.monotonic()
    setting = SETTINGS[name]
    common = {
        **make(setting, work),
        **setting.keys,
        "training.steps": str(2 * half),
        "metrics.log_freq": str(2 * half),
        "validation.enable": "false",
        "checkpoint.enable": "false",
    }
    states = work / "states"
    wanted = {arm: keys for arm, keys in arms(half, states).items() if arm in chosen}
    runs: list[dict[str, Any]] = []
    for _ in tqdm(range(rounds), desc=name, unit="round"):
        if not fits(len(runs), time.monotonic() - begin, seconds):
            break
        shutil.rmtree(states, ignore_errors=True)
        runs.append(
            {
                arm: timed(setting.config, setting.warmup, {**common, **wanted[arm]})
                for arm in in_turn(list(wanted), len(runs))
            }
        )
        yield so_far(name, half, runs)


def so_far(name: str, half: int, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns what results.json holds of whole rounds."""
    setting, first = SETTINGS[name], runs[0]["baseline"]
    return {
        "setting": name,
        "rounds": len(runs),
        "steps": 2 * half,
        "warmup": setting.warmup,
        **{key: first[key] for key in SHARED},
        "teacher": next(run["teacher"] for run in runs[0].values() if run["teacher"]),
        "arms": summarise(runs, setting.warmup),
        "runs": runs,
    }


SHARED = (
    "versions",
    "git_commit",
    "hardware",
    "parameters",
    "tokens_per_step",
    "student_flops_per_token",
    "peak_flops",
)


def write(results: dict[str, Any], out: Path) -> str:
    """Writes results.json and report.md into the setting's folder; returns the report."""
    hardware = results["hardware"]
    device = hardware.get("device_name") or f"cpu {hardware['cpu']}"
    folder = out / f"{results['setting']}-{re.sub('[^a-z0-9]+', '-', device.lower())}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    text = as_markdown(results)
    (folder / "report.md").write_text(text)
    return text


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("setting", choices=list(SETTINGS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--seconds", type=float, default=math.inf, help="begin no round that will not fit"
    )
    parser.add_argument("--half", type=int, default=12, help="steps in either half of a run")
    names = list(arms(1, Path()))[1:]
    parser.add_argument("--arms", nargs="+", default=names, choices=names)
    parser.add_argument("--out", type=Path, default=ROOT / "recipes" / "results" / "overhead")
    parser.add_argument("--work", type=Path, default=ROOT / "outputs" / "overhead")
    options = parser.parse_args()
    least = SETTINGS[options.setting].warmup + 2
    if options.half < least:
        parser.error(f"--half {options.half} must be at least {least}: warm-up, one step, the last")
    if "LET_reading" in options.arms and "LET_writing" not in options.arms:
        parser.error("--arms LET_reading needs LET_writing, which writes what it reads")
    work = (options.work / options.setting).absolute()
    work.mkdir(parents=True, exist_ok=True)
    arms_in_turn = ["baseline", *options.arms]
    text = ""
    for results in measure(
        options.setting, options.rounds, options.half, arms_in_turn, work, options.seconds
    ):
        text = write(results, options.out)  # now: a later round may be cut short
    print(text)


if __name__ == "__main__":
    main()
