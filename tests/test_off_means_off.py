"""LET off, or past s_stop: bit for bit what torchtitan's own Trainer and Transformer do."""

import shutil

import pytest
import torch

from let_titan.train import LetTrainer
from tests.plain import plain_trainer
from tests.support import Lab, logged, weights
from tests.world import run_world

KEYS = ("loss_metrics/global_avg_loss", "grad_norm", "lr", "n_tokens_seen")
SCHEME = {"model__init_scheme": "torchtitan"}
NO_LET = {"lambda_0": 0.0}


def train(trainer):
    """Runs a trainer to its end: (losses and norms by step, final weights)."""
    try:
        with logged(trainer) as lines:
            trainer.train()
        return [{key: line[key] for key in KEYS} for line in lines], weights(trainer.model_parts[0])
    finally:
        trainer.close()


def assert_bit_equal(found, wanted):
    (lines, final), (plain_lines, plain_final) = found, wanted
    assert len(lines) == 6
    assert lines == plain_lines
    assert final.keys() == plain_final.keys()
    for name in final:
        assert torch.equal(final[name], plain_final[name]), name


@pytest.mark.parametrize("let", [None, NO_LET], ids=["no [let]", "lambda_0 = 0"])
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compile"])
def test_one_process(let, compiled, lab):
    changes = {**SCHEME, "compile__enable": compiled}
    found = train(LetTrainer(lab.config(let, **changes)))
    wanted = train(plain_trainer(lab.config(None, **changes)))
    assert_bit_equal(found, wanted)


LAYOUTS = {
    "fsdp": {"parallelism__data_parallel_shard_degree": 2},
    "fsdp compile": {"parallelism__data_parallel_shard_degree": 2, "compile__enable": True},
    "tp": {"parallelism__tensor_parallel_degree": 2},
}
HSDP = {
    "parallelism__data_parallel_shard_degree": 2,
    "parallelism__data_parallel_replicate_degree": 2,
}


def pair_of_runs(assets, folder, layouts):
    """In a world: ours, from its own init, beside plain torchtitan from the same weights.

    DTensor has no random state on a CPU, so torchtitan's own sharded init repeats itself there;
    the plain trainer is given ours.
    """
    lab, results = Lab(assets, folder), {}
    for name, layout in layouts.items():
        ours = LetTrainer(lab.config(None, **SCHEME, **layout))
        plain = plain_trainer(lab.config(None, **SCHEME, **layout))
        with torch.no_grad():
            for p, q in zip(
                plain.model_parts[0].parameters(), ours.model_parts[0].parameters(), strict=True
            ):
                p.copy_(q)
        results[name] = (train(ours), train(plain))
    return results


def test_two_ranks(assets, tmp_path):
    for found, wanted in run_world(2, pair_of_runs, tmp_path, assets, tmp_path, LAYOUTS).values():
        assert_bit_equal(found, wanted)


def test_hsdp_on_four_ranks(assets, tmp_path):
    for found, wanted in run_world(
        4, pair_of_runs, tmp_path, assets, tmp_path, {"hsdp": HSDP}
    ).values():
        assert_bit_equal(found, wanted)


def test_a_checkpoint_at_s_stop_continues_in_plain_torchtitan(lab):
    """Our LET run to the end, and plain torchtitan from our checkpoint at s_stop = 4."""
    changes = {**SCHEME, "checkpoint__enable": True, "checkpoint__interval": 4}
    lines, final = train(LetTrainer(lab.config({"s_stop": 4}, **changes)))
    shutil.rmtree(lab.folder / "run" / "checkpoint" / "step-6")
    plain_lines, plain_final = train(plain_trainer(lab.config(None, **changes)))
    assert plain_lines == lines[4:]
    for name in final:
        assert torch.equal(final[name], plain_final[name]), name
