"""The runs of the transfer: each trained once, by let_titan.train, in outputs/transfer."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lab.launch import train
from lab.runs import is_trained

from let_titan.runs import Run
from transfer.corpus import SEEN
from transfer.protocol import Protocol

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Start:
    """A student from which fine-tuning begins: an arm's checkpoint of some step."""

    arm: str
    seed: int
    step: int

    @property
    def name(self) -> str:
        return f"{self.arm}-seed{self.seed}-step{self.step}"


@dataclass(frozen=True)
class Place:
    """Where runs, corpus and results are; ``folder`` is below ``root``."""

    protocol: Protocol = field(default_factory=Protocol)
    root: Path = ROOT
    folder: Path = ROOT / "outputs" / "transfer"
    results: Path = ROOT / "recipes" / "results" / "transfer"

    def files(self, domain: str) -> dict[str, str]:
        """Returns the keys that name a domain's files."""
        corpus = self.folder.relative_to(self.root) / "corpus" / domain
        return {
            "training.dataset_path": f"{corpus}/train.jsonl.zst",
            "validation.dataset_path": f"{corpus}/validation.jsonl.zst",
        }

    def pretrained(self, arm: str, seed: int) -> Path:
        return self.folder / "pretraining" / f"{arm}-seed{seed}"

    def fine_tuned(self, domain: str, start: Start) -> Path:
        return self.folder / "fine_tuning" / f"{domain}-{start.name}"

    def checkpoint(self, start: Start) -> Path:
        return self.pretrained(start.arm, start.seed) / "checkpoint" / f"step-{start.step}"


def trained(place: Place, folder: Path, keys: Mapping[str, str]) -> Run:
    """Returns the run in ``folder``; trains it, or what is left of it, where it is not finished."""
    if not is_trained(place.root, place.protocol.config, keys, folder):
        here = str(folder.relative_to(place.root))  # relative, as summary.json names it
        train(place.root, place.protocol.config, {**keys, "job.dump_folder": here})
    return Run.load(folder)


def pretrain(place: Place, arm: str, seed: int) -> Run:
    """Returns an arm's run on the domains that are not held out."""
    protocol = place.protocol
    keys = {**protocol.pretraining, **protocol.arms[arm], "debug.seed": str(seed)}
    return trained(place, place.pretrained(arm, seed), {**keys, **place.files(SEEN)})


def fine_tune(place: Place, domain: str, start: Start) -> Run:
    """Returns the run on ``domain`` that begins with ``start``'s weights."""
    keys = {
        **place.protocol.fine_tuning,
        **place.files(domain),
        "debug.seed": str(start.seed),
        "checkpoint.initial_load_path": str(place.checkpoint(start).relative_to(place.root)),
    }
    return trained(place, place.fine_tuned(domain, start), keys)
