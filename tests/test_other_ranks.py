"""A run saved on two ranks goes on with one, and then with four, as if nothing had changed."""

import json

import pytest
import torch.distributed as dist

from let_titan.train import LetTrainer
from tests.support import Lab, relative_error, run_world, weights

RUN = {
    "training__global_batch_size": 8,
    "training__local_batch_size": 2,
    "data__lanes": 4,
    "checkpoint__enable": True,
    "checkpoint__interval": 2,
    "optimizer__eps": 1e-3,  # at 1e-8 Adam turns the last bit of a sum into a whole step
    "debug__seed": 7,
}


def go_on(assets, folder, until):
    """Trains a run of six steps up to ``until``, from its last checkpoint if there is one."""
    trainer = LetTrainer(Lab(assets, folder).config({"s_stop": 5}, **RUN))
    trainer.should_continue_training = lambda: trainer.step < until
    try:
        trainer.train()
        state = trainer.optimizers.state_dict()
        moments = {
            name: value.full_tensor() if hasattr(value, "full_tensor") else value
            for name, value in state.items()
            if "exp_avg" in name
        }
        return {"weights": weights(trainer.model_parts[0]), "moments": moments}
    finally:
        trainer.close()


def lines(folder):
    return [json.loads(s) for s in (folder / "run" / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def runs(assets, tmp_path_factory):
    """The run on two ranks, and the same one on two, one and four ranks in turn."""
    folder = tmp_path_factory.mktemp("ranks")
    for name in ("two", "changing"):
        (folder / name).mkdir()
    whole = run_world(2, go_on, folder, assets, folder / "two", 6)
    changing = folder / "changing"
    run_world(2, go_on, folder, assets, changing, 2)
    alone = go_on(assets, changing, 4)
    assert dist.get_world_size() == 1 and alone
    last = run_world(4, go_on, folder, assets, changing, 6)
    return folder, whole, last


def test_metrics_go_on_as_on_the_same_ranks(runs):
    folder, _, _ = runs
    two, changing = lines(folder / "two"), lines(folder / "changing")
    assert [line["step"] for line in changing] == [1, 2, 3, 4, 5, 6]
    for key in ("loss", "grad_norm", "align_loss", "align_cosine"):
        wanted = [line[key] for line in two if line[key] is not None]
        assert [line[key] for line in changing if line[key] is not None] == pytest.approx(
            wanted, rel=1e-5
        ), key
    for key in ("lambda", "lr", "tokens", "teacher_active"):
        assert [line[key] for line in changing] == [line[key] for line in two], key


@pytest.mark.parametrize("part", ["weights", "moments"])
def test_weights_and_moments_are_those_of_the_same_ranks(part, runs):
    _, whole, last = runs
    assert last[part].keys() == whole[part].keys() and last[part]
    for name, wanted in whole[part].items():
        assert relative_error(last[part][name], wanted) < 1e-4, name
