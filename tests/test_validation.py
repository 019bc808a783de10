"""The validation set does not depend on the layout, so its loss is one number."""

import time
from types import SimpleNamespace
from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributed.tensor import DTensor
from torchtitan.components.loss import IGNORE_INDEX

from let_titan.data.validation import share
from let_titan.run.record import VALIDATION_KEY
from let_titan.train import LetTrainer
from tests.support import Lab, logged
from tests.world import run_world

LAYOUTS = {
    "fsdp": {},
    "tp": {"parallelism__tensor_parallel_degree": 2},
    "pp": {"parallelism__pipeline_parallel_degree": 2},
}


@pytest.mark.parametrize("flex", [False, True])
def test_what_is_validated_before_the_first_step_compiles_nothing_but_flex(flex, lab, monkeypatch):
    """Compiled for its shape, blocks would be compiled for any when training's comes."""
    trainer = LetTrainer(lab.config(None))
    monkeypatch.setattr(trainer.job_config.validation, "enable", True)
    monkeypatch.setattr(trainer.job_config.data, "document_attention", flex)
    compiled = []

    def backend(graph, _):
        compiled.append(graph)
        return graph.forward

    def validate(*_):
        torch.compile(lambda x: x + 1, backend=backend)(torch.ones(2))

    validator = SimpleNamespace(should_validate=lambda _: True, validate=validate)
    monkeypatch.setattr(trainer, "validator", validator, raising=False)
    trainer._begin(0)
    trainer.close()
    assert bool(compiled) == flex


@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 6), st.integers(1, 5))
def test_ranks_share_the_set(n_batches, rows, ranks, size):
    """Each sequence once, whatever the ranks; all ranks have equally many batches of one shape."""
    labels = torch.arange(n_batches * rows * 2).view(n_batches, rows, 2)
    whole = [({"input": part + 1, "positions": part + 2}, part) for part in labels]
    parts = [share(whole, rank, ranks, size) for rank in range(ranks)]
    assert len({len(part) for part in parts}) == 1
    found = []
    for inputs, part in (batch for rank in parts for batch in rank):
        assert part.shape == (size, 2) and inputs.keys() == {"input", "positions"}
        valid = part[part != IGNORE_INDEX]
        assert inputs["input"][part != IGNORE_INDEX].equal(valid + 1)
        assert inputs["positions"][part != IGNORE_INDEX].equal(valid + 2)
        found += valid.tolist()
    assert sorted(found) == labels.flatten().tolist()


def losses(assets, folder, data, layouts):
    """Returns each layout's ``FIGURES`` before the first step, and how many weights stay whole."""
    return {name: validated(Lab(assets, folder), data, layout) for name, layout in layouts.items()}


def validated(lab, data, layout):
    config = lab.config(
        None,
        validation__enable=True,
        validation__seq_len=64,
        validation__local_batch_size=3,
        **{"validation__steps": 3, **data},  # 9 sequences, which no layout's batches divide
        **layout,
    )
    trainer = LetTrainer(config)
    try:
        trainer.run_folder.begin(0, None)
        # A validation of two seconds, after training that was not logged yet
        processor, now = trainer.metrics_processor, [100.0]
        processor.ntokens_since_last_log, processor.time_last_log = 10**6, 0.0
        for part in trainer.model_parts:
            part.register_forward_hook(lambda *_: now.__setitem__(0, 102.0))
        with logged(trainer) as lines, mock.patch.object(time, "perf_counter", lambda: now[0]):
            trainer.validator.validate(trainer.model_parts, 0)
        weights = [weight for part in trainer.model_parts for weight in part.parameters()]
        whole = sum(not isinstance(weight, DTensor) for weight in weights)
    finally:
        trainer.close()
    (line,) = (line for line in lines if VALIDATION_KEY in line)
    return [*(line[key] for key in FIGURES), whole]


FIGURES = (VALIDATION_KEY, "validation_metrics/bits_per_byte", "validation_metrics/throughput(tps)")


def test_one_config_validates_to_one_number_in_every_layout(assets, tmp_path):
    data = {
        "validation__dataset": "pile",
        "validation__dataset_path": str(assets / "validation.jsonl"),
    }
    *wanted, speed, _ = losses(assets, tmp_path, data, {"one": {}})["one"]
    assert speed == 9 * 64 / 2
    found = run_world(2, losses, tmp_path, assets, tmp_path, data, LAYOUTS)
    for name in LAYOUTS:
        assert found[name][:2] == pytest.approx(wanted, rel=1e-6), name
    # A device's: the first data-parallel rank has five of the sequences, and one without labels.
    assert {name: figures[2] for name, figures in found.items()} == {
        "fsdp": 5 * 64 / 2,
        "tp": speed / 2,
        "pp": speed / 2,
    }
    assert found["fsdp"][3] == 0  # gathered weights would take memory until the next step
    other = losses(assets, tmp_path, {**data, "validation__steps": 2}, {"one": {}})["one"]
    assert other[:2] != pytest.approx(wanted, rel=1e-4)  # other sequences tell
