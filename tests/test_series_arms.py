"""recipes/series: the arms' losses against the papers', and training."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from series.training import Arm, Training, batches, step_losses, train
from time_series import STUDY, TINY

from tests.classifiers import BASELINE, DATA, KD, LET, model


def steps_of(arm, s=0, kind="timesnet"):
    student, teacher = model(kind).eval(), model("timesnet").eval()
    batch = DATA.train.take(torch.arange(4))
    return student, teacher, batch, step_losses(student, teacher, arm, batch, TINY.training, s)


@pytest.mark.parametrize("kind", ["timesnet", "patches"])
def test_let_adds_the_papers_loss_in_values_and_gradients(kind):
    arm = Arm("LET", lambda_0=0.7)
    student, teacher, batch, step = steps_of(arm, s=1, kind=kind)  # s_stop 4
    found = student(batch.series, batch.mask)
    states = teacher(batch.series, batch.mask).states[-1].detach()
    target, valid = student.tokens(states, batch.mask)
    cosine = F.cosine_similarity(found.states[0], target, dim=-1)[valid].mean()
    expected = F.cross_entropy(found.logits, batch.labels) - 0.7 * 3 / 4 * cosine
    torch.testing.assert_close(step.loss, expected)
    torch.testing.assert_close(step.cosine, cosine.detach())
    weights = [p for p in student.parameters() if p.requires_grad]
    ours, theirs = (torch.autograd.grad(x, weights) for x in (step.loss, expected))
    torch.testing.assert_close(ours, theirs)


def test_kd_mixes_the_task_with_the_soft_labels():
    student, teacher, batch, step = steps_of(KD)
    ours, theirs = (m(batch.series, batch.mask).logits / KD.temperature for m in (student, teacher))
    p = theirs.softmax(-1)
    kl = (p * (p.log() - ours.log_softmax(-1))).sum(-1).mean()
    task = F.cross_entropy(ours * KD.temperature, batch.labels)
    torch.testing.assert_close(step.loss, 0.5 * task + 0.5 * KD.temperature**2 * kl)


def test_teacher_takes_no_part_after_s_stop():
    def refuse(*_):
        raise AssertionError("asked")

    student, batch = model("timesnet"), DATA.train.take(torch.arange(4))
    assert step_losses(student, refuse, LET, batch, TINY.training, TINY.training.s_stop).loss > 0
    with pytest.raises(AssertionError, match="asked"):
        step_losses(student, refuse, LET, batch, TINY.training, TINY.training.s_stop - 1)


def test_let_without_weight_is_the_baseline_bit_for_bit():
    def curve(arm, teacher):
        student = STUDY.students["TimesNet"].build(DATA, 1)
        found = train(student, teacher, arm, DATA.train, DATA.test, TINY.training, 1e-3, 1)
        return found["curve"], [p.detach() for p in student.parameters()]

    teacher = model("timesnet").eval()
    (ours, weights), (theirs, others) = (
        curve(replace(LET, lambda_0=0.0), teacher),
        curve(BASELINE, None),
    )
    assert ours == theirs and all(map(torch.equal, weights, others))
    assert curve(LET, teacher)[0] != theirs


def test_a_classifier_learns_the_made_up_set():
    student = STUDY.teacher.build(DATA, 0)
    training = Training(steps=80, batch=12, evaluate_every=80)
    curve = train(student, None, BASELINE, DATA.train, DATA.test, training, 3e-3, 0)["curve"]
    assert [step for step, *_ in curve] == [0, 80]
    assert curve[-1][1] > 0.9


def test_batches_are_epochs():
    drawn = batches(7, 3, seed=0)
    first = torch.cat([next(drawn), next(drawn)])
    assert len(first.unique()) == 6
    assert len(next(batches(2, 16, seed=0))) == 2
