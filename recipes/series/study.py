"""All runs of the study: what is finished is kept a line a run, so that a stopped study goes on."""

import hashlib
import json
import statistics
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from series.data import Dataset, load, split_off
from series.patches import PatchTransformer
from series.timesnet import TimesNet
from series.training import Arm, Training, train

Record = dict[str, Any]
ALONE = Arm("baseline")
VALIDATION_SHARE = 0.25


@dataclass(frozen=True)
class Model:
    """A classifier's shape; ``kind`` is "timesnet" or "patches"."""

    kind: str
    width: int
    n_blocks: int

    def build(self, data: Dataset, seed: int) -> nn.Module:
        """Returns the model with the weights of ``seed``, which it leaves as torch's own seed."""
        torch.manual_seed(seed)
        if self.kind == "timesnet":
            return TimesNet(*data.shape, width=self.width, n_blocks=self.n_blocks)
        return PatchTransformer(
            *data.shape, width=self.width, n_blocks=self.n_blocks, patch=data.patch
        )


@dataclass(frozen=True)
class Study:
    """What is trained, written down before its first run.

    Attributes:
        hypothesis, deciding: in words, for the report.
        sets: names that ``load`` knows.
        teacher: trained first, once for each seed, then frozen.
        students: {name: shape}.
        arms: the first is the baseline; all get its learning rate.
        seeds: of weights, batches and dropout; the same for every arm.
        rates: of which validation from train chooses one for each set and model.
        tuning_seeds: each draws a validation part of its own; none is in ``seeds``.
    """

    hypothesis: str
    deciding: str
    sets: tuple[str, ...]
    teacher: Model
    students: dict[str, Model]
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    rates: tuple[float, ...]
    tuning_seeds: tuple[int, ...]
    training: Training


class Unfinished(Exception):
    """A run is missing from a store that only reads."""


class Store:
    """Finished runs by key, a JSON line each; with ``trains=False`` none is added.

    A last line without its end, which a kill or a full disk leaves, counts as none.
    """

    def __init__(self, path: Path, trains: bool = True) -> None:
        self.path, self.trains = path, trains
        path.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text() if path.exists() else ""
        whole = text[: text.rfind("\n") + 1]
        if trains and whole != text:
            path.write_text(whole)
        self.records: dict[str, Record] = {r["key"]: r for r in map(json.loads, whole.splitlines())}

    def finish(self, what: Record, run: Callable[[], Record]) -> Record:
        """Returns the record of the run that ``what`` describes; makes and keeps it if need be."""
        text = json.dumps(what, sort_keys=True)
        key = hashlib.sha256(text.encode()).hexdigest()[:12]
        if key not in self.records:
            if not self.trains:
                raise Unfinished(key)
            self.records[key] = {"key": key, **run()}
            with self.path.open("a") as file:
                file.write(json.dumps(self.records[key]) + "\n")
        return self.records[key]


def tuned_rate(study: Study, store: Store, data: Dataset, model: Model) -> float:
    """Returns the rate of the best mean validation accuracy; of equal ones the lowest loss."""

    def score(rate: float) -> tuple[float, float]:
        ends = []
        for seed in study.tuning_seeds:
            what = describe(study, data, model, ALONE, rate, seed)
            run = partial(tuning_run, study, data, model, rate, seed)
            ends.append(store.finish({**what, "purpose": "tuning"}, run)["curve"][-1])
        return statistics.fmean(end[1] for end in ends), -statistics.fmean(end[2] for end in ends)

    return max(study.rates, key=score)


def tuning_run(study: Study, data: Dataset, model: Model, rate: float, seed: int) -> Record:
    """Trains on a part of train and looks at the rest of it."""
    fit, validation = split_off(data.train, VALIDATION_SHARE, seed)
    student = model.build(data, seed)
    found = train(student, None, ALONE, fit, validation, study.training, rate, seed)
    facts = {"purpose": "tuning", "set": data.name, "model": asdict(model)}
    return {**facts, "rate": rate, "seed": seed, **found}


def describe(study: Study, data: Dataset, model: Model, arm: Arm, rate: float, seed: int) -> Record:
    """Returns all that decides what a run measures, without its teacher."""
    return {
        "set": [data.name, data.digest],
        "model": asdict(model),
        "arm": asdict(replace(arm, name="")),
        "training": asdict(study.training),
        "rate": rate,
        "seed": seed,
    }


class Teacher:
    """The frozen teacher of one set and seed, trained when it is first asked for.

    Its weights are not kept: a study that goes on trains it again, from the same seed.
    """

    def __init__(self, study: Study, data: Dataset, rate: float, seed: int) -> None:
        self.study, self.data, self.rate, self.seed = study, data, rate, seed
        self.what = describe(study, data, study.teacher, ALONE, rate, seed)

    @cached_property
    def trained(self) -> tuple[nn.Module, Record]:
        """The model, without gradients, and its record."""
        study, data = self.study, self.data
        model = study.teacher.build(data, self.seed)
        found = train(
            model, None, ALONE, data.train, data.test, study.training, self.rate, self.seed
        )
        facts = {"purpose": "teacher", "set": data.name, "rate": self.rate, "seed": self.seed}
        return model.eval().requires_grad_(False), {**facts, **found}


def teacher_run(teacher: Teacher) -> Record:
    return teacher.trained[1]


def student_run(
    study: Study, data: Dataset, name: str, arm: Arm, rate: float, teacher: Teacher
) -> Record:
    """Trains the student ``name`` on train and looks at test; the seed is its teacher's."""
    guide = teacher.trained[0] if arm.taught else None
    student = study.students[name].build(data, teacher.seed)
    found = train(student, guide, arm, data.train, data.test, study.training, rate, teacher.seed)
    facts = {"purpose": "student", "set": data.name, "student": name, "arm": arm.name}
    return {**facts, "rate": rate, "seed": teacher.seed, **found}


def run_all(study: Study, store: Store) -> Iterator[Record]:
    """Trains what is missing and yields the record of every teacher and student, by seed."""
    sets = [load(name) for name in study.sets]
    models = (study.teacher, *study.students.values())
    rates = {
        (data.name, model): tuned_rate(study, store, data, model)
        for data in sets
        for model in models
    }
    for seed in study.seeds:
        for data in sets:
            teacher = Teacher(study, data, rates[data.name, study.teacher], seed)
            yield store.finish(teacher.what, partial(teacher_run, teacher))
            for name, model in study.students.items():
                rate = rates[data.name, model]
                for arm in study.arms:
                    what = describe(study, data, model, arm, rate, seed)
                    run = partial(student_run, study, data, name, arm, rate, teacher)
                    yield store.finish(
                        {**what, "teacher": teacher.what} if arm.taught else what, run
                    )
