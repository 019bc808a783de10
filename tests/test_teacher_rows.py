"""A teacher's rows of unequal lengths: whatever lies beside a row, its states are its own."""

import copy

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn
from torch._dynamo.utils import counters
from torch.distributed.device_mesh import init_device_mesh
from transformers import AutoModel, AutoModelForCausalLM, MistralConfig

from let_titan.teacher import load_teacher
from let_titan.teacher.attention import Pieces, causal_pieces, takes_pieces
from let_titan.teacher.rows import positions_read, read_rows
from tests.support import relative_error
from tests.teachers import CONFIGS, LAYERS, SIZES, load
from tests.world import run_world

SLIDING = MistralConfig(
    **SIZES,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    initializer_range=0.2,
    sliding_window=5,
)
"""Attends by a mask of its own."""

ROWS = {
    "very unequal": [[40], [1], [17], [128]],
    "some empty": [[], [9], [], [23], []],
    "documents": [[3, 1, 20], [], [30], [1, 1]],
    "equal": [[12], [12], [12]],
    "one": [[31]],
    "none": [[], []],
}


def drawn(pieces, seed=0):
    count = sum(map(sum, pieces))
    return torch.randint(0, 320, (count,), generator=torch.Generator().manual_seed(seed))


def one_by_one(model, ids, pieces, layer=-1):
    """What transformers' model says of each piece alone, [N, d]."""
    parts = ids.split([length for row in pieces for length in row])
    with torch.no_grad():
        found = [model(part[None], output_hidden_states=True).hidden_states for part in parts]
    return torch.cat([states[layer][0] for states in found])


@pytest.fixture(scope="module")
def sliding(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sliding")
    torch.manual_seed(2)
    AutoModelForCausalLM.from_config(SLIDING).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def both(teachers, sliding):
    """Each architecture's teacher, and the untouched model."""
    folders = {**{name: teachers / name for name in CONFIGS}, "sliding": sliding}
    models = {name: AutoModel.from_pretrained(folder).eval() for name, folder in folders.items()}
    return {name: (load(folders[name]), model) for name, model in models.items()}


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("name", [*CONFIGS, "sliding"])
def test_states_are_those_of_each_row_alone(name, rows, both):
    teacher, model = both[name]
    pieces = ROWS[rows]
    documents = any(len(row) > 1 for row in pieces)
    if name == "sliding" and documents:
        pytest.skip("a mask of documents takes its window's place, as under one tokenizer")
    ids = drawn(pieces)
    found = read_rows(teacher, ids, pieces, documents)
    assert [len(states) for states in found] == [max(1, len(ids))] * 3
    if len(ids):
        for states, layer in zip(found, (-1, 2, 2), strict=True):
            assert relative_error(states, one_by_one(model, ids, pieces, layer)) < 1e-5


@given(
    st.lists(st.lists(st.integers(1, 30), max_size=3), min_size=1, max_size=5), st.integers(0, 9)
)
@example([[30], [30, 1]], 0)
@settings(deadline=None, max_examples=30)
def test_any_rows_of_any_documents(both, pieces, seed):
    teacher, model = both["llama"]
    ids = drawn(pieces, seed)
    found = read_rows(teacher, ids, pieces, documents=True)[0]
    if len(ids):
        assert relative_error(found, one_by_one(model, ids, pieces)) < 1e-5


@pytest.mark.parametrize("name", [*CONFIGS, "sliding"])
def test_as_many_positions_are_computed_as_are_counted(name, both):
    teacher, _ = both[name]
    seen = []
    first = next(m for m in teacher.model.modules() if isinstance(m, nn.Embedding))
    hook = first.register_forward_pre_hook(lambda _, args: seen.append(args[0].numel()))
    packed = takes_pieces(teacher.model.config)
    assert packed == (name != "sliding")
    for pieces in ROWS.values():
        seen.clear()
        read_rows(teacher, drawn(pieces), pieces, documents=True)
        assert seen == [positions_read([sum(row) for row in pieces], packed)]
    hook.remove()


def test_code_of_a_checkpoints_own_is_not_trusted_with_pieces(both):
    """It may have transformers' name for the architecture, and attend from row to row."""
    config = copy.deepcopy(both["llama"][1].config)
    assert takes_pieces(config)
    config.auto_map = {"AutoModel": "modeling.Own"}
    assert not takes_pieces(config)


def test_equal_rows_are_read_as_a_batch_bit_for_bit(both):
    pieces = ROWS["equal"]
    for teacher, _ in both.values():
        ids = drawn(pieces)
        found = read_rows(teacher, ids, pieces, documents=False)
        for states, wanted in zip(found, teacher(ids.view(3, 12)), strict=True):
            assert states.equal(wanted.flatten(0, 1))


def sharded(teachers):
    """On every rank: the states of its own rows, of other lengths than the other's."""
    rank = torch.distributed.get_rank()
    mesh, found = init_device_mesh("cpu", (2,)), {}
    for name in CONFIGS:
        teacher = load(teachers / name, LAYERS, mesh=mesh, placement="shard")
        for rows in [("very unequal", "documents"), ("none", "equal"), ("some empty", "none")]:
            pieces = ROWS[rows[rank]]
            ids = drawn(pieces)
            found[name, rows[rank]] = read_rows(teacher, ids, pieces, documents=False)[0]
    return found


def test_sharded_over_ranks_that_read_other_lengths(teachers, tmp_path, both):
    for (name, rows), states in run_world(2, sharded, tmp_path, teachers).items():
        ids = drawn(ROWS[rows])
        assert len(states) == max(1, len(ids))
        if len(ids):
            assert relative_error(states, one_by_one(both[name][1], ids, ROWS[rows])) < 1e-5


def test_compiled_blocks_are_not_compiled_anew_for_other_lengths(teachers, both):
    """Two graphs in all: of the first length, then of any; whatever the number of pieces."""
    torch.compiler.reset()
    options = {"dtype": torch.float32, "device": torch.device("cpu"), "seq_len": 48}
    teacher = load_teacher(teachers / "llama", ["last"], compile_backend="aot_eager", **options)
    counters.clear()
    for rows in ([[9], [20]], [[40], [1], [17]], [[5], [64]], [[3, 1, 20], [], [30], [1, 1]]):
        ids = drawn(rows)
        found = read_rows(teacher, ids, rows, documents=False)[0]
        assert relative_error(found, one_by_one(both["llama"][1], ids, rows)) < 1e-5
        graphs = counters["stats"]["unique_graphs"]
    assert graphs == 2 and not counters["graph_break"]


def test_the_operation_is_what_the_compiler_is_told():
    query, key, value = (torch.randn(1, heads, 12, 8) for heads in (4, 2, 2))
    pieces = Pieces(torch.tensor([3, 1, 8]))
    arguments = (query, key, value, pieces.lengths, 0.3)
    torch.library.opcheck(causal_pieces, arguments, test_utils=("test_schema", "test_faketensor"))
