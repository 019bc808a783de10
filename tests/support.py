"""What the tests share: tiny runs, fixed batches, spawned gloo worlds."""

import json
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torchtitan.components.dataloader import BaseDataLoader
from torchtitan.components.loss import IGNORE_INDEX
from torchtitan.train import Trainer

from let_titan.checks import check_config, find_mistakes
from let_titan.collectives import gathered
from let_titan.config import LetConfigManager, LetJobConfig
from let_titan.run.record import VALIDATION_KEY
from let_titan.train import LetTrainer

SEQ_LEN = 64

BASE: dict[str, dict[str, Any]] = {
    "model": {"flavor": "debug", "init_scheme": "llama"},
    "training": {
        "dataset": "pile",
        "local_batch_size": 4,
        "seq_len": SEQ_LEN,
        "steps": 6,
        "mixed_precision_param": "float32",
        "max_norm": float("inf"),
    },
    "optimizer": {"lr": 1e-2, "eps": 1e-8},
    "lr_scheduler": {"warmup_steps": 2},
    "metrics": {"log_freq": 1, "disable_color_printing": True},
    "activation_checkpoint": {"mode": "none"},
    "checkpoint": {"last_save_model_only": False, "interval": 1000},
    "debug": {"seed": 7},
    "comm": {"trace_buf_size": 0},
}


def toml_value(value: Any) -> str:
    return "inf" if value == float("inf") else json.dumps(value)


def write_toml(path: Path, sections: dict[str, dict[str, Any]]) -> Path:
    lines: list[str] = []
    for name, values in sections.items():
        lines += [f"[{name}]", *(f"{key} = {toml_value(v)}" for key, v in values.items()), ""]
    path.write_text("\n".join(lines))
    return path


class Lab:
    """Makes configs of tiny runs over one tokenizer, corpus and teacher.

    Args:
        assets: folder with tokenizer/, teacher/, train.jsonl and validation.jsonl.
        folder: where dump folders and TOML files go.
    """

    def __init__(self, assets: Path, folder: Path) -> None:
        self.assets, self.folder = assets, folder

    def sections(self, let: dict[str, Any] | None, **changes: Any) -> dict[str, dict[str, Any]]:
        """Returns a config's sections: BASE, with "section.key" changes; let=None: a baseline."""
        sections = {name: dict(values) for name, values in BASE.items()}
        sections["job"] = {"dump_folder": str(self.folder / "run")}
        sections["model"]["hf_assets_path"] = str(self.assets / "tokenizer")
        sections["training"]["dataset_path"] = str(self.assets / "train.jsonl")
        if let is not None:
            sections["let"] = {"enable": True, "k": 2, "lambda_0": 0.5, "s_stop": 4, **let}
            sections["teacher"] = {
                "checkpoint": str(self.assets / "teacher"),
                "dtype": "float32",
            }
        for name, value in changes.items():
            section, _, key = name.partition("__")
            sections.setdefault(section, {})[key] = value
        return sections

    def config(self, let: dict[str, Any] | None = None, *args: str, **changes: Any) -> LetJobConfig:
        """Parses and checks a config as ``main`` does."""
        config = self.parsed(let, *args, **changes)
        check_config(config)
        return config

    def parsed(self, let: dict[str, Any] | None = None, *args: str, **changes: Any) -> LetJobConfig:
        """Parses a config and does not check it."""
        name = f"run-{os.environ['RANK']}.toml"  # ranks write at the same time
        path = write_toml(self.folder / name, self.sections(let, **changes))
        return LetConfigManager().parse_args(["--job.config_file", str(path), *args])


def sentences(config: LetJobConfig) -> list[str]:
    """Returns a config's mistakes as a user reads them."""
    return [str(mistake) for mistake in find_mistakes(config)]


class FixedBatches(BaseDataLoader):
    """Gives each data-parallel rank its rows of one global batch, over and over.

    A fifth of the labels is ignored, and the share grows with the row: ranks and microbatches
    hold different numbers of valid tokens.
    """

    def __init__(self, vocab_size: int, rows: int, micro: int, rank: int, ranks: int) -> None:
        generator = torch.Generator().manual_seed(3)
        tokens = torch.randint(0, vocab_size, (rows, SEQ_LEN + 1), generator=generator)
        labels = tokens[:, 1:].clone()
        share = torch.linspace(0.0, 0.4, rows).unsqueeze(1)
        labels[torch.rand(labels.shape, generator=generator) < share] = IGNORE_INDEX
        mine = slice(rank * rows // ranks, (rank + 1) * rows // ranks)
        self.inputs = tokens[mine, :-1].split(micro)
        self.labels = labels[mine].split(micro)

    def __iter__(self) -> Iterator[tuple[dict[str, torch.Tensor], torch.Tensor]]:
        while True:
            for inputs, labels in zip(self.inputs, self.labels, strict=True):
                yield {"input": inputs.clone()}, labels.clone()

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        pass


def use_fixed_batches(trainer: Trainer, rows: int = 8) -> Iterator[Any]:
    """Returns an iterator for ``train_step`` over one global batch of ``rows`` sequences."""
    dims = trainer.parallel_dims
    rank = dims.get_mesh("batch").get_local_rank() if dims.dp_enabled else 0
    ranks = dims.dp_replicate * dims.dp_shard
    micro = trainer.job_config.training.local_batch_size
    args: Any = trainer.model_args
    ids = getattr(args, "vocabulary", None) or args.vocab_size  # no batch has an id of the padding
    batches = FixedBatches(ids, rows, micro, rank, ranks)
    return trainer.batch_generator(batches)


def full(tensor: torch.Tensor) -> torch.Tensor:
    tensor = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return tensor.detach().clone()


def clean_name(name: str) -> str:
    """A parameter's name without what checkpointing and compile put in between."""
    return name.replace("_checkpoint_wrapped_module.", "").replace("_orig_mod.", "")


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    return {clean_name(n): full(p.grad) for n, p in model.named_parameters() if p.grad is not None}


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {clean_name(name): full(p) for name, p in model.named_parameters()}


def of_all_stages(
    read: Callable[[nn.Module], dict[str, torch.Tensor]], trainer: Trainer
) -> dict[str, torch.Tensor]:
    """Returns what ``read`` finds in all parts of the model; under PP, in other ranks' stages."""
    mine = {name: value for part in trainer.model_parts for name, value in read(part).items()}
    return {name: value for found in gathered(mine) for name, value in found.items()}


@contextmanager
def logged(trainer: Trainer) -> Iterator[list[dict[str, Any]]]:
    """Collects what the trainer hands to its loggers."""
    lines: list[dict[str, Any]] = []
    processor = trainer.metrics_processor
    log = processor.logger.log
    processor.logger.log = lambda metrics, step: (
        lines.append({**metrics, "step": step}),
        log(metrics, step),
    )[1]
    yield lines
    processor.logger.log = log


def one_step(config: LetJobConfig, loss_fn: Callable[..., Any] | None = None) -> dict[str, Any]:
    """Trains step 1 on the fixed global batch: loss, un-clipped gradients, alignment.

    With validation its losses before and after the step come along.
    """
    trainer = LetTrainer(config)
    trainer.loss_fn = loss_fn or trainer.loss_fn
    try:
        batches = use_fixed_batches(trainer)
        initial = of_all_stages(weights, trainer)
        with logged(trainer) as lines:
            trainer.step = 1
            trainer.train_step(batches)
            found = of_all_stages(gradients, trainer)  # a pipeline's validation drops them
            if config.validation.enable:
                trainer.validator.validate(trainer.model_parts, 1)
        line = next(line for line in lines if "grad_norm" in line)
        return {
            "line": {k: v for k, v in line.items() if isinstance(v, int | float)},
            "gradients": found,
            "weights": initial,
            "validation": [line[VALIDATION_KEY] for line in lines if VALIDATION_KEY in line],
        }
    finally:
        trainer.close()


def relative_error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    wanted = wanted.double()
    return float((found.double() - wanted).norm() / wanted.norm().clamp_min(1e-12))


def worst_gradient(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> float:
    """Returns the largest relative error over all parameters; both must have the same ones."""
    assert found.keys() == wanted.keys(), sorted(found.keys() ^ wanted.keys())
    return max(relative_error(found[name], wanted[name]) for name in wanted)


def cosine(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> float:
    a = torch.cat([found[name].double().flatten() for name in wanted])
    b = torch.cat([wanted[name].double().flatten() for name in wanted])
    return float(torch.nn.functional.cosine_similarity(a, b, dim=0))


def cut_documents(folder: Path) -> None:
    """Sets truncation and padding in a tokenizer.json, as many models come with it."""
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["truncation"] = {
        "direction": "Right",
        "max_length": 8,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    content["padding"] = {
        "strategy": {"Fixed": 16},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "</s>",
    }
    path.write_text(json.dumps(content))


@contextmanager
def files_up_to(n_bytes: int) -> Iterator[None]:
    """While active, no file may grow beyond ``n_bytes``, as on a full disk or under a quota."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
