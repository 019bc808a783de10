"""A run saved in one layout goes on in another as if nothing had changed: DCP across layouts."""

import json

import pytest

from let_titan.train import LetTrainer
from tests.layouts import FSDP, PP, TP
from tests.support import Lab, of_all_stages, relative_error, weights
from tests.world import run_world

RUN = {
    "training__global_batch_size": 8,
    "training__local_batch_size": 2,
    "data__lanes": 4,
    "checkpoint__enable": True,
    "checkpoint__interval": 1,
    "optimizer__eps": 1e-3,  # at 1e-8 Adam turns the last bit of a sum into a whole step
    "debug__seed": 7,
}
STEPS = 6
CHAINS = {
    "FSDP2, TP and PP of 2, FSDP2 of 4, of 2, one process": [
        (2, [FSDP, TP, PP]),
        (4, [FSDP]),
        (2, [FSDP]),
        (1, [{}]),
    ],
    "FSDP2 x TP of 8, FSDP2 of 2": [(8, [{**FSDP, **TP}]), (2, [FSDP])],
}
"""{name: worlds in turn, each of so many processes and with its layouts in turn}."""


def moments(model_states):
    return {
        name: value.full_tensor() if hasattr(value, "full_tensor") else value
        for name, value in model_states.items()
        if "exp_avg" in name
    }


def go_on(assets, folder, legs):
    """Trains the run in each leg's layout up to its step, from the last checkpoint if there is one.

    Returns:
        weights and Adam's moments at the end.
    """
    for until, layout in legs:
        trainer = LetTrainer(Lab(assets, folder).config({"s_stop": 5}, **{**RUN, **layout}))
        trainer.should_continue_training = lambda trainer=trainer, until=until: trainer.step < until
        try:
            trainer.train()
            found = {
                "weights": of_all_stages(weights, trainer),
                "moments": moments(trainer.optimizers.state_dict()),
            }
        finally:
            trainer.close()
    return found


def lines(folder):
    return [json.loads(s) for s in (folder / "run" / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(assets, tmp_path_factory):
    """The run on two ranks all along."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, run_world(2, go_on, folder, assets, folder, [(STEPS, FSDP)])


def changing(assets, folder, worlds):
    """The same run from layout to layout, a step in each and the rest in the last."""
    step = 0
    for i, (ranks, layouts) in enumerate(worlds):
        legs = []
        for layout in layouts:
            step += 1
            legs.append((step, layout))
        if i == len(worlds) - 1:
            legs[-1] = (STEPS, legs[-1][1])
        found = (
            go_on(assets, folder, legs)
            if ranks == 1
            else run_world(ranks, go_on, folder, assets, folder, legs)
        )
    return found


@pytest.mark.parametrize(("name", "worlds"), CHAINS.items())
def test_the_run_goes_on_as_in_one_layout(name, worlds, whole, assets, tmp_path):
    folder, wanted = whole
    found = changing(assets, tmp_path, worlds)
    one, other = lines(folder), lines(tmp_path)
    assert [line["step"] for line in other] == list(range(1, STEPS + 1))
    for key in ("loss", "grad_norm", "align_loss", "align_cosine"):
        values = [line[key] for line in one if line[key] is not None]
        assert [line[key] for line in other if line[key] is not None] == pytest.approx(
            values, rel=1e-5
        ), key
    for key in ("lambda", "lr", "tokens", "teacher_active"):
        assert [line[key] for line in other] == [line[key] for line in one], key
    for part in ("weights", "moments"):
        assert found[part].keys() == wanted[part].keys() and found[part]
        for parameter, value in wanted[part].items():
            assert relative_error(found[part][parameter], value) < 1e-4, (part, parameter)
