"""Which checkpoint is meant, and what its run's summary.json says of the model in it."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from let_titan.checkpoint.checksums import SUFFIX
from let_titan.checkpoint.folders import (
    ABANDONED,
    INDEX,
    METADATA,
    step_folders,
    whole_checkpoints,
)
from let_titan.checks import MODEL_NAME
from let_titan.errors import ConfigError
from let_titan.runs import read_summary
from let_titan.student import FLAVORS, LetModelArgs


@dataclass(frozen=True)
class Source:
    """A checkpoint and its run.

    Attributes:
        folder: the whole checkpoint.
        run: the run's folder, ``job.dump_folder``.
        summary: its summary.json.
    """

    folder: Path
    run: Path
    summary: dict[str, Any]

    @property
    def step(self) -> int | None:
        """The step it was saved at; None where its folder has another name."""
        match = re.fullmatch(r"step-(\d+)", self.folder.resolve().name)
        return int(match[1]) if match else None

    @property
    def abandoned(self) -> str | None:
        """The folder that it was set aside to by checkpoint.load_step; None: it was not.

        The run's lines of its step are then of another checkpoint, that took its place.
        """
        parent = self.folder.resolve().parent.name
        return parent if parent.startswith(ABANDONED) else None

    @property
    def config(self) -> dict[str, Any]:
        """The run's config, section by section."""
        return self.summary["config"]

    def model_args(self, vocabulary: int) -> LetModelArgs:
        """Returns the student's arguments, for a tokenizer of ``vocabulary`` ids.

        Raises:
            ConfigError: the run trained no student of ours.
        """
        model, recorded = self.config["model"], self.summary.get("architecture")
        known = recorded is not None or model["flavor"] in FLAVORS  # earlier versions only named it
        if model.get("name", MODEL_NAME) != MODEL_NAME or not known:
            raise ConfigError(
                f"{self.run / 'summary.json'} names the model {model.get('name')!r}, flavor "
                f"{model['flavor']!r}, which is no student of this let_titan: export it with the "
                "version that trained it."
            )
        if recorded is None:
            args = FLAVORS[model["flavor"]]
        else:
            args = LetModelArgs.from_architecture(recorded)
        args.pad_vocabulary(vocabulary, model.get("pad_vocab_to_multiple_of", 1))
        args.rope_theta = model.get("rope_theta", args.rope_theta)
        args.max_seq_len = self.config["training"]["seq_len"]
        return args


def find_source(checkpoint: Path, run: Path | None = None) -> Source:
    """Finds what to export.

    Args:
        checkpoint: a ``step-N`` folder, or a run's folder, which stands for its last checkpoint.
        run: the run's folder, where the checkpoint is no longer inside it.

    Raises:
        ConfigError: there is no whole checkpoint, or no run.
        ValueError: the run's summary.json is damaged.
    """
    folder = find_checkpoint(checkpoint)
    homes = [run] if run else list(folder.resolve().parents)
    home = next((path for path in homes if (path / "summary.json").is_file()), None)
    if home is None:
        raise ConfigError(
            f"No summary.json is {'in ' + repr(str(run)) if run else 'above ' + repr(str(folder))}"
            ": name the folder of the run that saved the checkpoint with --run, since the weights "
            "alone do not say how they were trained."
        )
    return Source(folder, home, read_summary(home / "summary.json"))


def find_checkpoint(path: Path) -> Path:
    """Returns ``path``, if it is a whole checkpoint, or the last whole one below it.

    Raises:
        ConfigError: neither is there.
    """
    if (path / METADATA).is_file():
        return path
    if (path / INDEX).is_file():
        raise ConfigError(
            f"{str(path)!r} holds safetensors already (checkpoint.last_save_in_hf): export another "
            "checkpoint of the run, or save without that key."
        )
    if any(path.glob("*.distcp")) or any(path.glob(f"*{SUFFIX}")):
        raise ConfigError(
            f"The checkpoint {str(path)!r} was cut short while it was saved or deleted (it has no "
            f"{METADATA}): export another one."
        )
    for parent in (path, path / "checkpoint", *sorted(path.glob("*/"))):
        dcp = [step for step in whole_checkpoints(parent).values() if (step / METADATA).is_file()]
        if dcp:
            return dcp[-1]
    left = [step for parent in (path, *path.glob("*/")) for step in step_folders(parent).values()]
    for step in left:
        if (step / INDEX).is_file():
            return find_checkpoint(step)  # which says what it is
    found = "only checkpoints that were cut short" if left else "no checkpoint"
    raise ConfigError(
        f"{str(path)!r} holds {found}: give a step-N folder, or the folder of a run that saved one "
        "(checkpoint.enable = true)."
    )
