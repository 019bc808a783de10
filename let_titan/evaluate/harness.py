"""lm-evaluation-harness as a subprocess: it lives in an environment of its own, .venv-eval."""

import json
import os
import subprocess
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import xxhash

from let_titan.disk import make_folder, replace_text
from let_titan.errors import ConfigError, RunError, writing
from let_titan.evaluate.models import Model, folder_digest
from let_titan.evaluate.offline import place_tasks
from let_titan.evaluate.tasks import SEED, SHOTS, TASKS
from let_titan.programs import run_to_end
from let_titan.runs import is_number

PYTHON = Path(__file__).parents[2] / ".venv-eval" / "bin" / "python"
"""Of the environment that scripts/eval_env.sh makes; $LET_TITAN_EVAL_PYTHON names another."""

OFFLINE = dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"), "1")

ACCURACY = "acc,none"
"""The harness's name for the figure that all of the paper's tasks have."""

OURS = ("PYTHONPATH", "RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""What the harness must not inherit: our packages, and a world of which it is no rank."""

ABOUT = """
import importlib.metadata as m, importlib.util as u, json
names = ("lm-eval", "transformers", "datasets", "torch", "tokenizers", "accelerate")
path = u.find_spec("lm_eval").submodule_search_locations[0]
print(json.dumps([path, {name: m.version(name) for name in names}]))
"""


@dataclass(frozen=True)
class Settings:
    """How the harness is called; all of it stands in the result.

    Attributes:
        tasks: names.
        offline: folder of task YAMLs and data; None: the hub.
        add_bos: whether BOS stands before the text; None: as each model was trained.
        dtype: of the weights.
        batch_size: sequences at once, or "auto".
        device: as torch names it.
        limit: items of a task; None: all.
        gpus: processes, each with a whole model on a GPU of its own (accelerate launch).
        parallelize: part one model over all GPUs instead.
    """

    tasks: tuple[str, ...] = tuple(TASKS)
    offline: Path | None = None
    add_bos: bool | None = None
    dtype: str = "bfloat16"
    batch_size: str = "auto"
    device: str = "cpu"
    limit: int | None = None
    gpus: int = 1
    parallelize: bool = False


class Harness:
    """The second environment, looked at once.

    Args:
        python: its interpreter.

    Raises:
        ConfigError: it is missing, or has no harness.
    """

    def __init__(self, python: Path) -> None:
        self.python = python
        try:
            about = subprocess.run(
                [str(python), "-c", ABOUT], capture_output=True, text=True, check=True
            )
        except (OSError, subprocess.CalledProcessError) as error:
            raise ConfigError(
                f"lm-evaluation-harness is not in {str(python)!r}: make its environment with "
                "bash scripts/eval_env.sh, or name the Python that has it in LET_TITAN_EVAL_PYTHON."
            ) from error
        package, self.versions = json.loads(about.stdout)
        self.tasks = Path(package) / "tasks"

    def command(self, model: Model, settings: Settings, included: Path, out: Path) -> list[str]:
        """Returns the command line; ``add_bos_token`` is always said, whatever its default."""
        arguments = {
            "pretrained": model.folder.resolve(),
            "dtype": settings.dtype,
            "add_bos_token": settings.add_bos,
            "parallelize": settings.parallelize,
        }
        start = [str(self.python), "-m"]
        if settings.gpus > 1:
            start += ["accelerate.commands.launch", "--multi_gpu", "--num_processes"]
            start += [str(settings.gpus), "-m"]
        command = [*start, "lm_eval", "run", "--model", "hf", "--model_args"]
        command += [",".join(f"{key}={value}" for key, value in arguments.items())]
        command += ["--tasks", ",".join(settings.tasks), "--num_fewshot", str(SHOTS)]
        command += ["--seed", str(SEED), "--batch_size", settings.batch_size]
        command += ["--device", settings.device, "--log_samples", "--output_path", str(out)]
        if settings.offline is not None:
            command += ["--include_path", str(included)]
        return command if settings.limit is None else [*command, "--limit", str(settings.limit)]

    def run(self, model: Model, settings: Settings, log: Path) -> dict[str, Any]:
        """Runs the harness once; returns its result file. What it says goes to ``log``.

        Raises:
            RunError: it failed.
        """
        with TemporaryDirectory() as folder:
            included, out = Path(folder) / "tasks", Path(folder) / "out"
            included.mkdir()
            if settings.offline is not None:
                place_tasks(settings.offline, self.tasks, included)
            environment = {k: v for k, v in os.environ.items() if k not in OURS}
            environment |= OFFLINE if settings.offline is not None else {}
            with writing(log):
                output = log.open("w")
            with output:
                code = run_to_end(
                    self.command(model, settings, included, out),
                    env=environment,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
            results = sorted(out.rglob("results_*.json"))
            if code or not results:
                raise RunError(
                    f"lm-evaluation-harness failed on {model.name} (exit code {code}): its last "
                    f"words are in {log}; mend what they name and start the same command again, "
                    "which takes up finished models from the cache."
                )
            return json.loads(results[-1].read_text())


def harness_python() -> Path:
    """Returns the interpreter of the harness's environment."""
    named = os.environ.get("LET_TITAN_EVAL_PYTHON")
    return Path(named) if named else PYTHON


def key_of(model: Model, task: str, settings: Settings, harness: Harness) -> str:
    """Returns a name that changes with all that can change a task's result.

    The number of GPUs that share the items does not count: each item is scored by a whole model.
    (The shot before an item may differ, as each process of the harness draws its own.)
    """
    offline = settings.offline
    said = {
        **asdict(replace(settings, tasks=(task,), gpus=1)),
        "offline": None if offline is None else folder_digest(offline),
        "model": model.digest,
        "versions": harness.versions,
        "seed": SEED,
        "shots": SHOTS,
    }
    return xxhash.xxh3_128_hexdigest(json.dumps(said, sort_keys=True).encode())


def evaluate(
    model: Model, settings: Settings, harness: Harness, folder: Path
) -> dict[str, dict[str, Any]]:
    """Returns {task: result}, from the cache in ``folder`` where it is there.

    A result has the harness's figures, the task's version and hash, items, and the settings.

    Raises:
        ConfigError: ``folder`` can be none.
        RunError: the harness failed, a task has no accuracy, or the cache cannot be written.
    """
    if settings.add_bos is None:
        settings = replace(settings, add_bos=model.add_bos)
    keys = {task: key_of(model, task, settings, harness) for task in settings.tasks}
    cache = {task: folder / "cache" / f"{key}.json" for task, key in keys.items()}
    results = {task: cached(file) for task, file in cache.items()}
    missing = tuple(task for task, result in results.items() if result is None)
    if missing:
        make_folder(folder / "cache")
        log = folder / f"{model.name.replace('/', '-')}.log"
        found = harness.run(model, replace(settings, tasks=missing), log)
        inaccurate = [task for task in missing if ACCURACY not in found["results"][task]]
        for task in (task for task in missing if task not in inaccurate):
            results[task] = task_result(found, task, settings)
            replace_text(cache[task], json.dumps(results[task]) + "\n")
        if inaccurate:
            raise RunError(
                f"{', '.join(inaccurate)} gives no accuracy: leave it out of --tasks, whose others "
                "are taken up from the cache."
            )
    return {task: result for task, result in results.items() if result is not None}


def cached(file: Path) -> dict[str, Any] | None:
    """Returns a result of the cache; None where there is none, or one that a kill has torn."""
    try:
        result = json.loads(file.read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return result if isinstance(result, dict) else None


def task_result(found: dict[str, Any], task: str, settings: Settings) -> dict[str, Any]:
    """Returns what the harness's result file says of one task.

    Its hash is over the items in their order, which several GPUs change: theirs is left out, or
    ``let_titan.compare`` would take the same items for others. Of a single item there is no
    standard error, for which the harness has a word.
    """
    figures = found["results"][task]
    normed = figures.get("acc_norm,none")
    metric = "acc" if normed is None else "acc_norm"
    error = figures[f"{metric}_stderr,none"]
    return {
        "acc": figures[ACCURACY],
        **({} if normed is None else {"acc_norm": normed}),
        "stderr": error if is_number(error) else None,
        "metric": metric,
        "items": found["n-samples"][task]["effective"],
        "version": found["versions"].get(task),
        "hash": found.get("task_hashes", {}).get(task) if settings.gpus == 1 else None,
        "add_bos": settings.add_bos,
    }
