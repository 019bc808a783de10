"""python -m let_titan.evaluate.offline DATA OUT

Writes a folder that ``python -m let_titan.evaluate --offline OUT`` reads, from data sets that were
downloaded before. DATA holds a folder for each task (hellaswag, winogrande, lambada_openai,
openbookqa, arc_easy, arc_challenge, piqa, sciq, boolq) with its splits as the hub has them:
train*, validation* and test* in .parquet, .jsonl or .json. Tasks without a folder are left out.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import yaml
from datasets import load_dataset

from let_titan.disk import write_whole
from let_titan.errors import ConfigError, exit_code, writing
from let_titan.evaluate.tasks import TASKS
from let_titan.export.folder import check_free

ROLES = {"train": "training_split", "validation": "validation_split", "test": "test_split"}
SPLITS = tuple(ROLES)
FORMATS = {".parquet": "parquet", ".jsonl": "json", ".json": "json"}


def write_offline(data: Path, out: Path) -> list[str]:
    """Writes a YAML and JSON lines for each task that ``data`` has; returns their names.

    Raises:
        ConfigError: ``data`` has none, or ``out`` is taken.
        RunError: the folder cannot be written.
    """
    check_free(out)
    found = {task: splits for task in TASKS if (splits := splits_of(data / task))}
    if not found:
        raise ConfigError(
            f"{str(data)!r} has no folder named after a task with train*, validation* or test* "
            f"in {', '.join(FORMATS)}: the tasks are {', '.join(TASKS)}."
        )

    def write(folder: Path) -> None:
        for task, splits in found.items():
            (folder / task).mkdir()
            for split, files in splits.items():
                rows = load_dataset(
                    FORMATS[files[0].suffix], data_files=[str(f) for f in files], split="train"
                )
                rows.to_json(folder / task / f"{split}.jsonl")
            write_task(folder, task, list(splits))

    with writing(out):
        write_whole(out, write)
    return list(found)


def splits_of(folder: Path) -> dict[str, list[Path]]:
    """Returns a task's files by split, of one format each.

    Raises:
        ConfigError: a split has files of several.
    """
    found = {}
    for split in SPLITS:
        files = sorted(f for f in folder.glob(f"{split}*") if f.suffix in FORMATS)
        formats = sorted({f.suffix for f in files})
        if len(formats) > 1:
            raise ConfigError(
                f"{str(folder)!r} has files of {split} in several formats ({', '.join(formats)}), "
                "and which belong together is not known: keep those of one."
            )
        if files:
            found[split] = files
    return found


def write_task(folder: Path, task: str, splits: list[str]) -> None:
    """Writes TASK.yaml: the harness's own task, with its data from TASK/SPLIT.jsonl.

    ``include`` is read below the harness's folder of tasks, ``data_files`` below ``folder``. A
    split that is not there is not asked for: without a training split the shot is another item of
    the evaluated one.
    """
    files = {split: f"{task}/{split}.jsonl" for split in splits}
    settings = {
        "include": TASKS[task],
        "task": task,
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": files},
        **{ROLES[split]: None for split in SPLITS if split not in splits},
    }
    (folder / f"{task}.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))


def place_tasks(offline: Path, harness_tasks: Path, out: Path) -> list[str]:
    """Writes the YAMLs of ``offline`` to ``out`` with whole paths, for ``lm_eval --include_path``.

    Args:
        offline: folder with TASK.yaml files and their data.
        harness_tasks: the harness's own folder of tasks.
        out: an existing folder.

    Returns:
        The names of the tasks.

    Raises:
        ConfigError: there is no YAML.
    """
    names = []
    for file in sorted(offline.glob("*.yaml")):
        settings: dict[str, Any] = yaml.safe_load(file.read_text())
        if "include" in settings:
            settings["include"] = str(harness_tasks / settings["include"])
        files = settings["dataset_kwargs"]["data_files"]
        for split, name in files.items():
            files[split] = str((offline / name).resolve())
        (out / file.name).write_text(json.dumps(settings))  # JSON is YAML
        names.append(settings["task"])
    if not names:
        raise ConfigError(
            f"{str(offline)!r} has no TASK.yaml: make the folder with "
            "python -m let_titan.evaluate.offline DATA OUT."
        )
    return names


def main(args: list[str] | None = None) -> int:
    """Writes the folder; returns 0, or after a sentence 2 (the input) or 1 (the disk)."""
    parser = argparse.ArgumentParser(
        prog="let_titan.evaluate.offline",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("data", type=Path, help="folder of downloaded data sets")
    parser.add_argument("out", type=Path, help="folder to write; must not exist yet")
    options = parser.parse_args(args)

    def write() -> None:
        print(f"{options.out} has {', '.join(write_offline(options.data, options.out))}.")

    return exit_code("let_titan.evaluate.offline", write)


if __name__ == "__main__":
    sys.exit(main())
