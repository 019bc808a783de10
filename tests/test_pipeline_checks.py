"""What a pipeline's schedule cannot do is said at start."""

import pytest

from let_titan.checks import find_mistakes

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
        ({"parallelism__pipeline_parallel_schedule_csv": "x.csv"}, "schedule_csv is not supported"),
        ({"optimizer__early_step_in_backward": True}, "optimizer.early_step_in_backward = true"),
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
    assert not find_mistakes(lab.parsed(None, **{**PP, SCHEDULE: schedule}), 2)


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
    owner = {**keys, "teacher__pipeline": "owner"}
    assert not any("teacher.pipeline" in str(m) for m in find_mistakes(lab.parsed({}, **owner), 2))
