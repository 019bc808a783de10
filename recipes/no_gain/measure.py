"""The runs of the question, each trained once, and what is measured of their students."""

import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lab.launch import train
from lab.runs import is_trained
from theory.students import load_student, nll, windows_of

from let_titan.export.source import Source, find_source
from let_titan.runs import Run, read_lines
from let_titan.student.model import LetTransformer
from let_titan.teacher import load_teacher, prepare_teacher, read_head
from let_titan.tokenizer.build import vocab_size
from no_gain.closeness import ceilings, closeness, targets_of
from no_gain.gradients import (
    cosine,
    gradients_of_batch,
    held_out_gradient,
    mixtures,
    state_at,
)
from no_gain.protocol import Protocol
from no_gain.readout import readout_nll

ROOT = Path(__file__).resolve().parents[2]
TARGETS = {"raw": False, "centred": True}
AT_ONCE = 16
"""Windows that a model reads at once."""


@dataclass(frozen=True)
class Place:
    """Where runs and results are; ``folder`` is below ``root``."""

    protocol: Protocol = field(default_factory=Protocol)
    root: Path = ROOT
    folder: Path = ROOT / "outputs" / "lab" / "no_gain"
    results: Path = ROOT / "recipes" / "results" / "why_no_gain"

    def run(self, arm: str) -> Path:
        return self.folder / arm.lower().replace(",", "").replace(" ", "-")


def trained(place: Place, arm: str) -> Run:
    """Returns an arm's run; trains it, or what is left of it, where it is not finished."""
    folder, protocol = place.run(arm), place.protocol
    keys = {**protocol.keys, **protocol.arms[arm]}
    if not is_trained(place.root, protocol.config, keys, folder):
        here = {"job.dump_folder": str(folder.relative_to(place.root))}
        train(place.root, protocol.config, {**keys, **here})
    return Run.load(folder)


def looks(folder: Path, k: int) -> list[dict[str, float]]:
    """Returns what the trainer's diagnostics saw of a run's one pair, step by step."""
    return [
        {
            "step": line["step"],
            "cosine": line["diagnostics"]["block_cosine"][0][k - 1],
            "grad_cosine": line["diagnostics"]["grad_cosine"][0],
            "grad_ratio": line["diagnostics"]["grad_ratio"][0],
        }
        for line in read_lines(folder / "metrics.jsonl")
        if "diagnostics" in line
    ]


@dataclass(frozen=True)
class Text:
    """Windows and what the teacher makes of them: ids [W, S + 1], its last states [W, S, d_T]."""

    ids: torch.Tensor
    teacher: torch.Tensor

    @property
    def tokens(self) -> torch.Tensor:
        """[W S], those that are read."""
        return self.ids[:, :-1].flatten()

    @property
    def labels(self) -> torch.Tensor:
        """[W S], those that come next."""
        return self.ids[:, 1:].flatten()


@dataclass(frozen=True)
class Material:
    """What all students are measured on.

    Attributes:
        held_out, train: the validation's text, and the student's.
        head: the teacher's, [V, d_T].
    """

    held_out: Text
    train: Text
    head: torch.Tensor


def material_of(source: Source, protocol: Protocol) -> Material:
    """Reads the texts of a run, and what its protocol's teacher makes of them."""
    named = [keys.get("teacher.checkpoint") for keys in protocol.arms.values()]
    path = next(filter(None, named))
    folder = prepare_teacher(path)
    texts = [
        windows_of(source, protocol.held_out),
        windows_of(source, protocol.train, "training"),
    ]
    device, seq_len = texts[0].device, texts[0].shape[1] - 1
    teacher = load_teacher(folder, ["last"], dtype=torch.float32, device=device, seq_len=seq_len)
    held_out, train = (
        Text(ids, torch.cat([teacher(part[:, :-1])[0] for part in ids.split(AT_ONCE)]))
        for ids in texts
    )
    vocabulary = vocab_size(source.config["model"]["hf_assets_path"])
    head = read_head(folder, teacher.model, vocabulary, torch.float32)
    return Material(held_out, train, head)


@torch.no_grad()
def states_of(model: LetTransformer, ids: torch.Tensor, k: int) -> torch.Tensor:
    """Returns block ``k``'s output of windows, [W S, d_M]."""
    found = [state_at(model, part[:, :-1], k) for part in ids.split(AT_ONCE)]
    return torch.cat(found).flatten(0, 1)


def of_teacher(material: Material, width: int, epochs: int) -> dict[str, Any]:
    """Returns what can be had from the teacher's states as a student of ``width`` meets them."""
    held_out, train = material.held_out, material.train
    logits = held_out.teacher.flatten(0, 1) @ material.head.T
    targets = {
        name: targets_of(held_out.teacher.flatten(0, 1), width, centre)
        for name, centre in TARGETS.items()
    }
    states = [text.teacher.flatten(0, 1) for text in (train, held_out)]
    others = (states[1], held_out.labels)
    return {
        "nll": F.cross_entropy(logits, held_out.labels).item(),
        "readout": readout_nll(states[0], train.labels, others, len(material.head), epochs),
        "ceilings": {name: asdict(ceilings(t, held_out.tokens)) for name, t in targets.items()},
        "any": {name: t.mean(0).square().sum().item() for name, t in targets.items()},
    }


def of_student(model: LetTransformer, material: Material, k: int, epochs: int) -> dict[str, Any]:
    """Returns block ``k``'s closeness to the teacher and what can be read off it."""
    held_out, train = material.held_out, material.train
    states, others = states_of(model, train.ids, k), states_of(model, held_out.ids, k)
    theirs = held_out.teacher.flatten(0, 1)
    with torch.no_grad():
        losses = [nll(model, part).item() for part in held_out.ids.split(AT_ONCE)]
    pair = (others, held_out.labels)
    return {
        "block": k,
        "nll": statistics.fmean(losses),  # of parts of one size
        "readout": readout_nll(states, train.labels, pair, len(material.head), epochs),
        "closeness": {
            name: asdict(
                closeness(others, targets_of(theirs, others.shape[-1], centre), held_out.tokens)
            )
            for name, centre in TARGETS.items()
        },
    }


def of_gradients(model: LetTransformer, material: Material, protocol: Protocol) -> dict[str, Any]:
    """Returns {loss: mean over batches of its gradient's cosine to the held-out NLL's}."""
    k, batch = protocol.k, protocol.batch
    wanted = held_out_gradient(model, k, material.held_out.ids, batch)
    mean = material.train.teacher.mean((0, 1))
    parts = zip(material.train.ids.split(batch), material.train.teacher.split(batch), strict=True)
    found: dict[str, list[float]] = {}
    for _, (ids, states) in zip(range(protocol.batches), parts, strict=False):
        targets = {"raw": states, "centred": states - mean}
        gradients = mixtures(gradients_of_batch(model, k, ids, targets, material.head))
        for name, gradient in gradients.items():
            found.setdefault(name, []).append(cosine(gradient, wanted))
    return {name: summary(values) for name, values in found.items()}


def summary(values: list[float]) -> dict[str, float]:
    return {"mean": statistics.fmean(values), "sd": statistics.stdev(values)}


def measured(place: Place) -> dict[str, Any]:
    """Trains what is missing and measures it all."""
    protocol = place.protocol
    runs = {arm: trained(place, arm) for arm in protocol.arms}
    baseline = place.run("baseline")
    source = find_source(baseline)
    material = material_of(source, protocol)
    students: dict[str, Any] = {}
    for arm in runs:
        model = load_student(find_source(place.run(arm)).folder)
        students[arm] = of_student(model, material, protocol.k, protocol.epochs)
        if arm == "baseline":
            students["the token alone"] = of_student(model, material, 0, protocol.epochs)
    steps = {
        step: load_student(baseline / "checkpoint" / f"step-{step}") for step in protocol.moments
    }
    width = source.model_args(len(material.head)).dim
    return {
        **{key: source.summary[key] for key in ("versions", "hardware")},
        "k": protocol.k,
        "seed": source.config["debug"]["seed"],
        "tokens": {"held_out": len(material.held_out.labels), "train": len(material.train.labels)},
        "batches": protocol.batches,
        "looks": {arm: found for arm in runs if (found := looks(place.run(arm), protocol.k))},
        "teacher": of_teacher(material, width, protocol.epochs),
        "students": students,
        "gradients": {s: of_gradients(model, material, protocol) for s, model in steps.items()},
    }
