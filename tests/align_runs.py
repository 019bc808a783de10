"""Runs under a teacher with a tokenizer of its own: their configs, batches and figures."""

import torch

from let_titan.checks import find_mistakes
from let_titan.data.tokenize import main as tokenize
from let_titan.spec import build_loader
from let_titan.tokenizer import load_tokenizer
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


def run(config, steps=1):
    """Trains ``steps``; returns (weights before, batches, gradients, lines)."""
    trainer = LetTrainer(config)
    try:
        before = of_all_stages(weights, trainer)
        seen = []
        taken = trainer.phase.watched

        def watched(batches, step):
            for batch in taken(batches, step):
                seen.append(({k: v.clone() for k, v in batch[0].items()}, batch[1].clone()))
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
