"""Auto stop: when it decides, what follows, and that a resume changes nothing of it."""

import json
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from let_titan.checks import find_mistakes
from let_titan.let.auto_stop import PATIENCE, AutoStop
from let_titan.plan import LetPlan, Pair, resolve_plan
from let_titan.train import LetTrainer
from let_titan.trainer import build_auto_stop
from tests.support import weights

STEPS, PLANNED = PATIENCE + 5, PATIENCE + 4


def look(gradients, states, threshold=0.0, gain=0.001):
    """Returns the step of a series at which auto stop decided (from 1) and why, or None."""
    stop = AutoStop((2,), threshold, gain)
    for step, (g, h) in enumerate(zip(gradients, states, strict=True), start=1):
        reason = stop.look(step, {"grad_cosine": [g], "block_cosine": [[-1.0, h]]})
        if reason is not None:
            assert stop.seen.s_stop == step
            return step, reason
    return None


def rising(n):
    return [0.01 * i for i in range(n)]


def test_decides_when_the_smoothed_cosine_turns():
    steady, turned = [0.2] * 20, [-0.2] * 20
    step, reason = look(steady + turned, rising(40))
    # 0.2 * (2 * 0.9**n - 1) < 0 from n = 7 on
    assert step == 27 and "below let.auto_stop_cosine = 0.0" in reason
    assert look(steady + turned, rising(40), threshold=-1.0) is None
    assert look([0.2] * 12 + [-0.9] + [0.2] * 12, rising(25)) is None  # one outlier is none
    assert look(turned, rising(20))[0] == PATIENCE  # not before so many looks


def test_decides_when_nothing_is_gained():
    step, reason = look([0.2] * 120, rising(20) + [0.2] * 100)
    assert "has not risen by let.auto_stop_gain = 0.001" in reason
    # The smoothed value lags by 0.09 at first: what is left to gain is below 0.001 after 43 looks.
    assert 20 + 43 < step <= 20 + 43 + 2 * PATIENCE
    assert look([0.2] * 80, rising(80)) is None


def test_pairs_count_by_their_mean_each_at_its_own_block():
    stop = AutoStop((1, 3), 0.0, 0.0)
    stop.look(1, {"grad_cosine": [0.5, -0.1], "block_cosine": [[0.1, 9.0, 9.0], [9.0, 9.0, 0.5]]})
    assert (stop.seen.gradients, stop.seen.states) == pytest.approx((0.2, 0.3))


def test_a_step_without_an_angle_does_not_count():
    nan = float("nan")
    assert look([nan] * 30, rising(30)) is None
    assert look([nan] * 5 + [-0.1] * 10, rising(15))[0] == 15


@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1)), max_size=40), st.integers(0, 40))
def test_a_copy_by_its_state_decides_alike(series, cut):
    one, other = AutoStop((1,), 0.1, 0.01), AutoStop((1,), 0.1, 0.01)
    for step, (g, h) in enumerate(series, start=1):
        if step == cut:
            other.load_state_dict(json.loads(json.dumps(one.state_dict())))
        found = {"grad_cosine": [g], "block_cosine": [[h]]}
        reason = one.look(step, found)
        if step >= cut:
            assert other.look(step, found) == reason or cut == 0
    assert cut == 0 or cut > len(series) or other.seen == one.seen


@given(st.integers(2, 50), st.data())
def test_the_plan_keeps_its_lambdas_before_the_stop(s_stop, data):
    plan = LetPlan((Pair("last", 2),), 0.3, s_stop)
    step = data.draw(st.integers(1, s_stop - 1))
    stopped = plan.stopped_at(step)
    assert [stopped.lambda_in(s) for s in range(1, step + 1)] == [
        plan.lambda_in(s) for s in range(1, step + 1)
    ]
    assert stopped.teacher_in(step) and not stopped.teacher_in(step + 1)
    assert stopped.lambda_in(step + 1) == 0.0 and stopped.planned_stop == s_stop


def test_only_who_asks_is_stopped(lab):
    """Diagnostics alone decide nothing, and distillation has none."""
    found = []
    for let, distill in (({"auto_stop": True}, "none"), ({}, "none"), ({"auto_stop": True}, "rkd")):
        config = lab.parsed({"diagnostics_freq": 1, **let}, distill__method=distill)
        found.append(build_auto_stop(resolve_plan(config), config))
    stop, *others = found
    assert (stop.blocks, stop.threshold, stop.gain) == ((2,), 0.0, 0.001) and others == [None] * 2


def train(lab, let, told=None, **changes):
    """Trains to the end; ``told`` is given the step after which the loader reads for no teacher."""
    saved = {"checkpoint__enable": True, "checkpoint__interval": 1, "checkpoint__keep_latest_k": 0}
    validation = {
        "validation__enable": True,
        "validation__dataset": "pile",
        "validation__dataset_path": str(lab.assets / "validation.jsonl"),
        "validation__steps": 1,
        "validation__seq_len": 64,
        "validation__freq": 100,
    }
    let = {"auto_stop": True, "diagnostics_freq": 1, "s_stop": PLANNED, **let}
    trainer = LetTrainer(
        lab.config(let, training__steps=STEPS, **saved, **{**validation, **changes})
    )
    tell, summary = trainer.dataloader.teacher_left, lab.folder / "run" / "summary.json"

    def teacher_left():
        told.append(trainer.step)
        if trainer.step == PATIENCE:  # the summary does not wait for the run's end
            assert json.loads(summary.read_text())["let_plan"]["s_stop"] == PATIENCE
        tell()

    trainer.dataloader.teacher_left = teacher_left
    try:
        trainer.train()
        trainer.run_folder.end("completed")
        text = (lab.folder / "run" / "metrics.jsonl").read_text()
        times = ("elapsed_s", "tokens_per_s", "memory_gib")
        lines = [json.loads(line) for line in text.splitlines()]
        lines = [{k: v for k, v in line.items() if k not in times} for line in lines]
        return lines, weights(trainer.model_parts[0]), trainer.phase.slot.teacher
    finally:
        trainer.close()


def test_ends_the_alignment_and_is_exact_over_a_resume(lab):
    teacher = lab.folder / "teacher"
    shutil.copytree(lab.assets / "teacher", teacher)
    always = {"auto_stop_cosine": 1.0}  # every angle is wide enough: it stops at the first chance
    changes = {"teacher__checkpoint": str(teacher)}
    told = []
    lines, wanted, loaded = train(lab, always, told, **changes)
    assert loaded is None and told == [PATIENCE]
    (note,) = [line for line in lines if "auto_stop" in line]
    assert note["step"] == PATIENCE and "below let.auto_stop_cosine" in note["auto_stop"]
    active = [line["step"] for line in lines if line.get("teacher_active")]
    assert active == list(range(1, PATIENCE + 1))
    assert PATIENCE in [line["step"] for line in lines if "val_loss" in line]
    run = lab.folder / "run"
    plan = json.loads((run / "summary.json").read_text())["let_plan"]
    assert (plan["s_stop"], plan["horizon"]) == (PATIENCE, PLANNED)
    for step in (4, PATIENCE, PATIENCE + 2):
        for later in range(step + 1, STEPS + 1):
            shutil.rmtree(run / "checkpoint" / f"step-{later}")
        if step == PATIENCE:
            teacher.rename(lab.folder / "gone")  # nobody needs it from here on
        told = []
        again, found, _ = train(lab, always, told, **changes)
        assert again == lines, step
        assert told == [max(PATIENCE, step + 1)]
        assert all(found[name].equal(value) for name, value in wanted.items())
        if step == PATIENCE:
            (lab.folder / "gone").rename(teacher)
    off = lab.parsed({"s_stop": PLANNED}, checkpoint__enable=True, training__steps=STEPS, **changes)
    assert any("set let.auto_stop = true" in str(mistake) for mistake in find_mistakes(off))


def test_once_it_has_stopped_the_log_has_its_own_interval(lab):
    """Every look is logged, since it may be s_stop; without a teacher nobody looks."""
    changes = {"metrics__log_freq": 5, "validation__enable": False}
    lines, _, _ = train(lab, {"auto_stop_cosine": 1.0}, [], **changes)
    logged = [line["step"] for line in lines if "loss" in line]
    always = {PLANNED, STEPS}
    after = [n for n in range(PATIENCE + 1, STEPS + 1) if n % 5 == 0 or n in always]
    assert logged == [*range(1, PATIENCE + 1), *after]
    looks = [line["step"] for line in lines if "diagnostics" in line]
    assert looks == list(range(1, PATIENCE + 1))


def test_what_cannot_be_is_said(lab):
    for let, sentence in (
        ({"diagnostics_freq": 0}, "let.diagnostics_freq is 0"),
        ({"diagnostics_freq": 1, "auto_stop_cosine": 2.0}, "it must be at least -1 and at most 1"),
        ({"diagnostics_freq": 1, "auto_stop_gain": -1.0}, "let.auto_stop_gain = -1.0"),
    ):
        mistakes = [str(m) for m in find_mistakes(lab.parsed({"auto_stop": True, **let}))]
        assert any(sentence in mistake for mistake in mistakes), mistakes
