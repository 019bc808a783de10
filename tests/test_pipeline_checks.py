"""What a pipeline's schedule and tensor-parallel ranks cannot do is said at start."""

import pytest

from let_titan.checks import find_mistakes
from tests.short import validated

PP = {"parallelism__pipeline_parallel_degree": 2}
SCHEDULE = "parallelism__pipeline_parallel_schedule"
MICRO = "parallelism__pipeline_parallel_microbatch_size"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({SCHEDULE: "DualPipeV"}, "pipeline_parallel_schedule = 'DualPipeV'"),
        ({SCHEDULE: "InterleavedZeroBubble", "compile__enable": True}, "compiled blocks do not"),
        ({MICRO: 3}, "microbatch_size = 3 does not divide training.local_batch_size = 4"),
        ({MICRO: 4}, "needs a microbatch for each of 2 stages"),
        (
            {SCHEDULE: "Interleaved1F1B", "training__local_batch_size": 5},
            "takes microbatches in 2 equal rounds",
        ),
        (
            {SCHEDULE: "ZBVZeroBubble", "parallelism__pipeline_parallel_layers_per_stage": 1},
            "makes 6 stages of 4 blocks for 2 ranks",
        ),
        ({"parallelism__pipeline_parallel_layers_per_stage": 2}, "makes 3 stages of 4 blocks"),
        (
            {SCHEDULE: "Interleaved1F1B", "parallelism__pipeline_parallel_layers_per_stage": 3},
            "makes 2 stages of 4 blocks for 2 ranks under 'Interleaved1F1B'",
        ),
        ({"parallelism__pipeline_parallel_schedule_csv": "x.csv"}, "schedule_csv is not supported"),
        (
            {
                "validation__enable": True,
                "validation__dataset": "c4_test",
                "validation__seq_len": 32,
            },
            "validation.seq_len = 32 must be training.seq_len = 64",
        ),
    ],
)
def test_a_mistake_is_named(changes, sentence, lab):
    mistakes = [str(m) for m in find_mistakes(lab.parsed(None, **{**PP, **changes}), 2)]
    assert any(sentence in mistake for mistake in mistakes), mistakes


@pytest.mark.parametrize("schedule", ["1F1B", "Interleaved1F1B", "GPipe", "ZBVZeroBubble"])
def test_a_schedule_that_fits_is_taken(schedule, lab):
    keys = {**PP, SCHEDULE: schedule, **validated(lab)}
    assert not find_mistakes(lab.parsed(None, **keys), 2)


def test_ranks_of_more_stages_than_torchtitan_would_give_them(lab):
    keys = {SCHEDULE: "Interleaved1F1B", "parallelism__pipeline_parallel_layers_per_stage": 1}
    assert not find_mistakes(lab.parsed(None, **PP, **keys), 2)  # 6, the ends' two among them


def test_replicas_of_context_parallel_ranks_are_no_ddp(lab):
    keys = {
        "parallelism__data_parallel_replicate_degree": 2,
        "parallelism__data_parallel_shard_degree": 1,
        "parallelism__context_parallel_degree": 2,
    }
    (mistake,) = find_mistakes(lab.parsed(None, **keys), 4)
    assert "parallelism.context_parallel_degree = 2 needs a GPU" in str(mistake)
    assert not find_mistakes(lab.parsed(None, **keys), 4, elsewhere=True)
    del keys["parallelism__context_parallel_degree"]
    keys["parallelism__tensor_parallel_degree"] = 2
    assert any("is DDP" in str(mistake) for mistake in find_mistakes(lab.parsed(None, **keys), 4))


@pytest.mark.parametrize(
    ("rows", "changes", "sentence"),
    [
        (4, {}, None),
        (8, {"parallelism__tensor_parallel_degree": 2}, None),
        (9, {MICRO: 3}, "local_batch_size = 9 rows among tensor, context and pipeline ranks"),
        (4, {"teacher__cache": "states"}, "with teacher.cache its states are read where"),
    ],
)
def test_a_teachers_rows_are_divided_among_the_pipelines_ranks(rows, changes, sentence, lab):
    keys = {**PP, "training__local_batch_size": rows, "teacher__pipeline": "all", **changes}
    ranks = 2 * changes.get("parallelism__tensor_parallel_degree", 1)
    found = [str(m) for m in find_mistakes(lab.parsed({}, **keys), ranks)]
    of_rows = [mistake for mistake in found if 'teacher.pipeline = "all"' in mistake]
    assert [sentence in mistake for mistake in of_rows] == ([] if sentence is None else [True])
    assert not any("teacher.pipeline" in str(m) for m in find_mistakes(lab.parsed(None, **keys), 2))
    owner = {**keys, "teacher__pipeline": "owner"}
    assert not any("teacher.pipeline" in str(m) for m in find_mistakes(lab.parsed({}, **owner), 2))


TENSOR = "parallelism__tensor_parallel_degree"


@pytest.mark.parametrize(
    ("flavor", "degree", "fit"),
    [
        ("1.4B_gqa", 8, "(16, keys and values 4): set it to one of 1, 2, 4."),
        ("3B", 8, "(20, keys and values 20): set it to one of 1, 2, 4, 5, 10, 20."),
        ("70B", 16, "(64, keys and values 8): set it to one of 1, 2, 4, 8."),
        ("70B", 8, None),
    ],
)
def test_tensor_parallel_ranks_take_whole_heads(flavor, degree, fit, lab):
    config = lab.parsed(None, model__flavor=flavor, **{TENSOR: degree})
    told = [str(mistake) for mistake in find_mistakes(config, degree, elsewhere=True)]
    assert [fit in each for each in told if "attention heads" in each] == ([True] if fit else [])


@pytest.mark.parametrize(("length", "sound"), [(64, True), (62, False), (63, False)])
def test_validations_sequences_are_cut_as_trainings(length, sound, lab):
    keys = {"validation__enable": True, "validation__seq_len": length, TENSOR: 2}
    told = [str(mistake) for mistake in find_mistakes(lab.parsed(None, **keys), 2)]
    of_length = [each for each in told if each.startswith(f"validation.seq_len = {length} is no")]
    assert len(of_length) == (not sound)
    del keys[TENSOR]
    told = [str(mistake) for mistake in find_mistakes(lab.parsed(None, **keys), 1)]
    assert not any("no multiple of 2 x tensor" in each for each in told)


def test_async_tensor_parallelism_is_the_compilers(lab):
    keys = {"parallelism__enable_async_tensor_parallel": True, TENSOR: 2}
    for compiled in (False, True):
        config = lab.parsed(None, **keys, compile__enable=compiled)
        told = [str(mistake) for mistake in find_mistakes(config, 2, elsewhere=True)]
        assert any("enable_async_tensor_parallel = true is the c" in x for x in told) != compiled


@pytest.mark.parametrize(("degree", "refused"), [(1, False), (2, True)])
def test_context_parallel_ranks_are_balanced_by_headtail(degree, refused, lab):
    keys = {"context_parallel_degree": degree, "context_parallel_load_balancer": "ptrr"}
    config = lab.parsed(None, **{f"parallelism__{key}": value for key, value in keys.items()})
    told = [str(mistake) for mistake in find_mistakes(config, degree, elsewhere=True)]
    assert ["load_balancer = 'ptrr' is for masks of flex" in each for each in told] == [
        True
    ] * refused
