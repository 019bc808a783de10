"""recipes/why_no_gain.py: what it measures against twins, and the program in a tiny form."""

import contextlib
import json

import pytest
import torch
import torch.nn.functional as F
import why_no_gain
from no_gain import measure
from no_gain.closeness import ceilings, closeness, targets_of
from no_gain.gradients import cosine, flat, held_out_gradient, mixtures, reached, state_at
from no_gain.measure import Place
from no_gain.protocol import HYPOTHESES, Protocol
from no_gain.readout import readout_nll
from no_gain.text import outcomes

from let_titan.alignment import interpolate_width
from let_titan.student import FLAVORS
from let_titan.student.model import LetTransformer
from tests.test_transfer import train_here


def test_closeness_is_of_pairs_of_tokens():
    torch.manual_seed(0)
    ids = torch.tensor([5, 7, 5, 9, 7, 5])
    states, targets = torch.randn(6, 4), targets_of(torch.randn(6, 3) + 1, 4, centre=False)
    found = closeness(states, targets, ids)
    cosines = F.normalize(states, dim=-1) @ targets.T
    pairs = [(i, j) for i in range(6) for j in range(6) if i != j]

    def mean(of):  # over the tokens whose id occurs again, each with its pairs' mean
        rows = [[cosines[i, j] for i, j in of if i == row] for row in (0, 1, 2, 4, 5)]
        return torch.stack([torch.stack(row).mean() for row in rows]).mean()

    assert found.own == pytest.approx(mean([(i, i) for i in range(6)]))
    assert found.any == pytest.approx(mean(pairs))
    assert found.same_id == pytest.approx(mean([(i, j) for i, j in pairs if ids[i] == ids[j]]))


def test_what_can_be_had_without_context():
    """Targets that are the id's own alone are all had by a table; equal ones by a constant."""
    ids = torch.tensor([0, 1, 0, 1])
    by_id = F.normalize(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), dim=-1)[ids]
    found = ceilings(by_id, ids)
    assert found.same_id == pytest.approx(1.0) and found.any == pytest.approx(0.5**0.5)
    raw = torch.randn(50, 6) + 4
    centred = targets_of(raw, 9, centre=True)
    expected = F.normalize(interpolate_width(raw - raw.mean(0), 9), dim=-1)
    torch.testing.assert_close(centred, expected)


def test_a_readout_finds_what_is_there():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(4, (4000,), generator=generator)
    telling = F.one_hot(labels, 4) + 0.1 * torch.randn(4000, 4, generator=generator)
    noise = torch.randn(4000, 4, generator=generator)
    for states, low, high in ((telling, 0.0, 0.1), (noise, 1.36, 1.45)):  # log 4 is 1.386
        others = (states[3000:], labels[3000:])
        nll = readout_nll(states[:3000], labels[:3000], others, 4, epochs=300)
        assert low < nll < high


@pytest.fixture
def model():
    args = FLAVORS["debug"]
    torch.manual_seed(1)
    args.vocab_size = 64
    args.max_seq_len = 16
    student = LetTransformer(args)
    with torch.no_grad():
        student.init_weights()
    return student


def test_the_cosine_is_what_a_small_step_gains(model):
    """-cosine times both norms is the NLL's slope along a gradient: against finite differences."""
    ids = torch.randint(64, (4, 17))
    weights = reached(model, 2)
    wanted = held_out_gradient(model, 2, ids, 2)
    direction = flat(state_at(model, ids[:2, :-1], 2).square().mean(), weights) + wanted
    slope = cosine(direction, wanted) * wanted.norm()
    step = 1e-2

    def nll_after(by):
        moved = direction / direction.norm() * by
        parts = moved.split([weight.numel() for weight in weights])
        with torch.no_grad():
            for weight, part in zip(weights, parts, strict=True):
                weight += part.view_as(weight)
            logits = model(ids[:, :-1]).double()
            for weight, part in zip(weights, parts, strict=True):
                weight -= part.view_as(weight)
        return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())

    found = (nll_after(step) - nll_after(-step)) / (2 * step)
    assert found.item() == pytest.approx(slope.item(), rel=1e-2)
    whole = flat(F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()), weights)
    torch.testing.assert_close(wanted, whole, rtol=1e-4, atol=1e-6)  # parts of a batch add up
    sums = mixtures({"NLL": wanted, "KL": whole, "alignment, raw": direction})
    torch.testing.assert_close(sums["SALT"], (wanted + whole) / 2)


def test_the_state_is_the_one_that_the_student_aligns(model):
    seen = []

    class Spy:
        def inject(self, block, hidden, *others):
            seen.append(hidden.detach())
            return hidden

    model.alignment = Spy()
    ids = torch.randint(64, (2, 16))
    model(ids, teacher_hidden=(), align_mask=torch.ones_like(ids, dtype=torch.bool))
    for block, hidden in enumerate(seen, start=1):
        torch.testing.assert_close(state_at(model, ids, block), hidden)


def test_a_report_of_nothing_tells_the_cure(tmp_path, capsys):
    with pytest.raises(SystemExit):
        why_no_gain.main(["--report"], Place(results=tmp_path))
    assert "run without --report first" in capsys.readouterr().err


def test_the_program_says_what_came_out(lab, tmp_path, monkeypatch):
    shape = {"validation__seq_len": 64, "validation__local_batch_size": 4}
    reads = {"validation__enable": True, "validation__dataset": "pile"}
    files = {"validation__dataset_path": str(lab.assets / "validation.jsonl")}
    lab.parsed(None, checkpoint__enable=True, **reads, **shape, **files)
    teacher = {"teacher.checkpoint": str(lab.assets / "teacher"), "teacher.dtype": "float32"}
    let = {"let.enable": "true", "let.k": "2", "let.s_stop": "4", "let.diagnostics_freq": "1"}
    let |= teacher
    centred = {"let.teacher_norm": "center"}
    protocol = Protocol(
        config="run-0.toml",
        keys={
            "training.steps": "4",
            "checkpoint.interval": "2",
            "checkpoint.keep_latest_k": "0",
            "validation.steps": "1",
        },
        arms={
            "baseline": {},
            "LET 1": let,
            "LET 1, centred": {**let, **centred},
            "baseline, llama": {"model.init_scheme": "torchtitan"},
            "LET 1, llama": {**let, "model.init_scheme": "torchtitan"},
            "SALT": {**teacher, "distill.method": "salt", "distill.n_kd": "4"},
        },
        moments=(2, 4),
        held_out=4,
        train=8,
        batches=2,
        batch=2,
        epochs=1,
    )
    place = Place(protocol, tmp_path, tmp_path / "runs", tmp_path / "results")
    trained = []

    def counted(root, config, keys, processes=1):
        trained.append(keys["job.dump_folder"])
        train_here(root, config, keys)

    monkeypatch.setattr(measure, "train", counted)
    with contextlib.chdir(tmp_path):
        why_no_gain.main([], place)
        assert len(trained) == 6
        kept = (place.results / "results.json").read_text()
        why_no_gain.main(["--report"], place)
        assert measure.trained(place, "LET 1").fact("exit_state") and len(trained) == 6
    assert (place.results / "results.json").read_text() == kept
    results = json.loads(kept)
    last = results["students"]["LET 1"]
    validated = [json.loads(x) for x in (place.run("LET 1") / "metrics.jsonl").open()][-1]
    assert last["nll"] == pytest.approx(validated["val_loss"], rel=1e-3)  # of the same windows
    assert set(results["gradients"]) == {"2", "4"} and len(results["looks"]["LET 1"]) == 4
    assert len(outcomes(results)) == len(HYPOTHESES)
    report = (place.results / "report.md").read_text()
    assert "| LET 1, centred |" in report and "| alignment, raw |" in report
    for name in ("looks", "reasons"):
        assert (place.results / f"{name}.png").stat().st_size > 1000
