"""Under a teacher with a tokenizer of its own, every layout equals one process."""

import pytest

from let_titan.checks import find_mistakes
from tests.align_runs import FIGURES, LET, aligned, run, some_unread
from tests.context_parallel import checked, stand_in
from tests.layouts import CP, FSDP, INTERLEAVED, PP, READ_BY_ALL, TP
from tests.support import Lab, worst_gradient
from tests.world import run_world

LAYOUTS = {
    "FSDP2, accumulation": {**FSDP, "training__local_batch_size": 2, "teacher__placement": "shard"},
    "TP": {**TP, "training__local_batch_size": 8},
    "CP": {**CP, "training__local_batch_size": 8},
    "PP": {**PP, "training__local_batch_size": 8},
    "PP, teacher's rows over it": {**PP, **READ_BY_ALL, "training__local_batch_size": 8},
    "PP, interleaved": {**INTERLEAVED, "training__local_batch_size": 4},
}

VARIANTS = {
    "linear": {"width_map": "linear"},
    "cca": {"loss": "cca", "cca_every": 1, "cca_ridge": 0.1, "cca_tokens": 0.0},
}
"""Their second step is looked at: CCA's first has no gradient."""


def in_layout(assets, folder, readers, layout, let=None):
    changes = {"data__lanes": 2, "training__global_batch_size": 8, **layout}
    config = Lab(assets, folder).parsed(LET | (let or {}), **aligned(readers, "uneven", **changes))
    if layout.items() >= CP.items():
        checked(config)
    else:
        assert find_mistakes(config) == []
    with some_unread():
        _, _, found, lines = run(config, 1 if let is None else 2)
    return found, [line for line in lines if "grad_norm" in line]


def in_each(assets, folder, readers):
    with stand_in():
        plain = {name: in_layout(assets, folder, readers, keys) for name, keys in LAYOUTS.items()}
        variants = {
            (name, layout): in_layout(assets, folder, readers, LAYOUTS[layout], let)
            for name, let in VARIANTS.items()
            for layout in ("FSDP2, accumulation", "CP")
        }
        return plain, variants


def test_layouts_equal_one_process(assets, tmp_path, readers):
    one = {"training__local_batch_size": 8}
    wanted, (line,) = in_layout(assets, tmp_path, readers, one)
    plain, variants = run_world(2, in_each, tmp_path, assets, tmp_path, readers)
    for (name, layout), (found, _) in variants.items():
        twin, _ = in_layout(assets, tmp_path, readers, one, VARIANTS[name])
        assert (len(found) > len(wanted)) == (name == "linear")
        bound = 1e-3 if name == "cca" else 1e-4  # as in tests/test_variants.py
        assert worst_gradient(found, twin) < bound, (name, layout)
    for name, (found, lines) in plain.items():
        assert worst_gradient(found, wanted) < 1e-5, name
        for key in (*FIGURES, "let/align_target_share"):
            assert lines[0][key] == pytest.approx(line[key], rel=1e-5), (name, key)
