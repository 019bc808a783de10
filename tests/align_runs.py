"""Runs under a teacher with a tokenizer of its own: their configs, batches and figures."""

import copy
from unittest import mock

import torch

from let_titan.checks import find_mistakes
from let_titan.data.teacher_text import TeacherText
from let_titan.data.tokenize import main as tokenize
from let_titan.spec import build_loader
from let_titan.tokenizer.build import load_tokenizer
from let_titan.train import LetTrainer
from tests.support import gradients, logged, of_all_stages, weights

LET = {"k": 2, "lambda_0": 0.5, "s_stop": 4}


def aligned(readers, name, **changes):
    return {
        "teacher__checkpoint": str(readers / name),
        "teacher__tokenizer": "align",
        **changes,
    }


def loader_of(config):
    return build_loader(1, 0, load_tokenizer(config.model.hf_assets_path), config)


def some_unread():
    """Of some rows, chosen by what is in them, leaves all documents unread, of others the first.

    As if a tokenizer changed them: rows are empty, short and long.
    """
    known = TeacherText.row

    def row(self, parts):
        unread = (1, len(parts), 0)[known(self, parts).ids.sum() % 3]
        return known(self, [p._replace(twin=None) for p in parts[:unread]] + parts[unread:])

    return mock.patch.object(TeacherText, "row", row)


def end_to_end(inputs):
    """Yields the teacher's ids of each row of a batch, and its targets among these."""
    begin = 0
    for targets, pieces in zip(inputs["teacher_targets"], inputs["teacher_pieces"], strict=True):
        ids = inputs["teacher_input"][begin : begin + sum(pieces)]
        yield ids, torch.where(targets < 0, targets, targets - begin)
        begin += len(ids)
    assert begin == len(inputs["teacher_input"])


def equal(one, other):
    """Whether two batches hold the same."""
    return one.keys() == other.keys() and all(
        each.equal(other[name]) if isinstance(each, torch.Tensor) else each == other[name]
        for name, each in one.items()
    )


def run(config, steps=1):
    """Trains ``steps``; returns (weights before, batches, gradients, lines)."""
    trainer = LetTrainer(config)
    try:
        before = of_all_stages(weights, trainer)
        seen = []
        taken = trainer.phase.watched

        def watched(batches, step):
            for batch in taken(batches, step):
                seen.append(copy.deepcopy(batch))
                yield batch

        trainer.phase.watched = watched
        batches = trainer.batch_generator(trainer.dataloader)
        with logged(trainer) as lines:
            for trainer.step in range(1, steps + 1):
                trainer.train_step(batches)
        maps = gradients(torch.nn.ModuleList(trainer.phase.maps.maps))
        return before, seen, of_all_stages(gradients, trainer) | maps, lines
    finally:
        trainer.close()


FIGURES = ("loss_metrics/global_avg_loss", "grad_norm", "let/align_loss", "let/align_cosine")


def figures(lines):
    return [{key: line.get(key) for key in FIGURES} for line in lines if "grad_norm" in line]


def told(lab, let=LET, **changes):
    return [str(mistake) for mistake in find_mistakes(lab.parsed(let, **changes), 1)]


def shards(lab, folder, teacher):
    """Makes shards of the corpus, with a teacher's ids; returns their pattern."""
    train, tokenizer = (str(lab.assets / name) for name in ("train.jsonl", "tokenizer"))
    own = ["--teacher-tokenizer", str(teacher)] if teacher else []
    assert tokenize([train, "--tokenizer", tokenizer, "--out", str(folder), *own]) == 0
    return str(folder / "*.arrow")
