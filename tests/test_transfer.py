"""recipes/fine_tune.py in a tiny form: corpus, pairs, what is made of them, and the program."""

import contextlib
import json
from dataclasses import replace

import fine_tune
import pytest
from lab.corpus import documents, part_of
from lab.launch import flags
from transfer import runs
from transfer.corpus import deal
from transfer.outcome import Later, compare_pairs
from transfer.pairs import LOSS, STEPS, pairs_of, steps_to
from transfer.protocol import Protocol
from transfer.runs import Place, Start

from let_titan.config import LetConfigManager
from let_titan.train import COMPLETED, LetTrainer
from tests.conftest import TEXTS


@pytest.fixture
def corpus(tmp_path):
    """Documents of three domains, long enough that each part gets some."""
    lines = [
        json.dumps({"text": f"{name} {i} {text}", "meta": {"pile_set_name": name}})
        for name in ("Docs", "Code", "Verse")
        for i, text in enumerate(TEXTS)
    ]
    path = tmp_path / "corpus.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def read(folder, domain):
    """The texts of a domain's two files."""
    return [
        [document["text"] for document in documents(str(folder / domain / f"{part}.jsonl.zst"))]
        for part in ("train", "validation")
    ]


def test_a_held_out_domain_is_nowhere_else_and_no_document_is_the_teachers(corpus, tmp_path):
    deal(str(corpus), tmp_path / "parts", ("Code", "Verse"))
    seen = [text for part in read(tmp_path / "parts", "seen") for text in part]
    assert {text.split()[0] for text in seen} == {"Docs"}
    whole = {json.loads(line)["text"] for line in corpus.read_text().splitlines()}
    for domain in ("Code", "Verse"):
        train, validation = read(tmp_path / "parts", domain)
        mine = {text for text in whole if text.startswith(domain) and part_of(text) == "student"}
        assert set(train) | set(validation) == mine
        assert not set(train) & set(validation) and len(train) > len(validation) > 0
    assert not any(part_of(text) == "teacher" for text in seen)


def test_of_the_run_that_ends_lower_the_checkpoint_nearest_in_loss_is_taken():
    high = [(10, 5.0), (20, 4.5), (30, 4.4)]
    low = [(10, 4.8), (20, 4.38), (30, 4.1)]
    steps, loss = pairs_of(7, high, low, [10, 20, 30])
    assert (steps.equal, steps.baseline.step, steps.let.step) == (STEPS, 30, 30)
    assert (loss.equal, loss.baseline.step, loss.let.step) == (LOSS, 30, 20)
    assert (loss.baseline.arm, loss.let.arm, loss.let.seed) == ("baseline", "LET", 7)
    loss = pairs_of(7, low, high, [10, 20, 30])[1]  # the other way round
    assert (loss.baseline.step, loss.let.step) == (20, 30)
    assert pairs_of(7, high, low, [10, 30])[1].let.step == 30  # none nearer was kept


def test_steps_to_a_loss_are_read_off_straight_lines():
    curve = [(0, 5.0), (10, 4.0), (20, 4.2), (30, 3.0)]
    assert steps_to(4.5, curve) == 5.0 and steps_to(4.0, curve) == 10.0
    assert steps_to(3.6, curve) == 25.0
    assert steps_to(5.5, curve) == 0.0 and steps_to(2.9, curve) is None


def test_differences_are_paired_by_seed():
    pairs = [pairs_of(seed, [(3, 4.0)], [(3, 4.0)], [3])[0] for seed in (0, 1)]
    found = {}
    for pair, gain in zip(pairs, (0.1, 0.3), strict=True):
        curve = [(0, 6.0), (10, 5.0), (20, 4.0)]
        found["Code", pair.baseline] = Later(curve, 3.0, 3.5)
        lower = [(step, loss - gain) for step, loss in curve]
        found["Code", pair.let] = Later(lower, 3.0, 3.5 + gain)
    rows = {row["measure"]: row for row in compare_pairs("Code", pairs, found)}
    assert rows["final"]["difference"]["value"] == pytest.approx(-0.2)
    # sd 0.2 / sqrt(2), t(0.975, 1) = 12.706
    assert rows["final"]["difference"]["low"] == pytest.approx(-0.2 - 12.706 * 0.1, rel=1e-3)
    assert rows["forgetting"]["difference"]["value"] == pytest.approx(0.2)
    assert rows["steps"]["baseline"] == [10.0, 10.0]
    assert rows["steps"]["LET"] == pytest.approx([9.0, 7.0])  # one nat is ten steps
    found["Code", pairs[1].let] = Later([(0, 6.0), (10, 5.5), (20, 5.2)], 3.0, 3.5)
    rows = {row["measure"]: row for row in compare_pairs("Code", pairs, found)}
    assert rows["steps"]["LET"][1] is None and rows["steps"]["difference"] is None


def train_here(root, config, keys, processes=1):
    """As ``lab.launch.train``, in this process: a new one takes 10 seconds to import torchtitan."""
    parsed = LetConfigManager().parse_args(["--job.config_file", str(root / config), *flags(keys)])
    trainer = LetTrainer(parsed)
    trainer.train()
    trainer.run_folder.end(COMPLETED)
    trainer.close()


def test_the_program_trains_what_is_missing_and_says_what_came_out(
    lab, corpus, tmp_path, monkeypatch
):
    shape = {"validation__seq_len": 64, "validation__local_batch_size": 4}
    reads = {"validation__enable": True, "validation__dataset": "pile"}
    lab.parsed(None, checkpoint__enable=True, **reads, **shape)
    teacher = {"teacher.checkpoint": str(lab.assets / "teacher"), "teacher.dtype": "float32"}
    often = {"validation.freq": "2", "validation.steps": "1", "metrics.log_freq": "1"}
    protocol = Protocol(
        config="run-0.toml",
        held_out=("Code",),
        seeds=(0, 1),
        pretraining={"training.steps": "4", "checkpoint.interval": "2", **often},
        arms={
            "baseline": {},
            "LET": {"let.enable": "true", "let.k": "2", "let.s_stop": "2", **teacher},
        },
        fine_tuning={"training.steps": "2", "checkpoint.last_save_model_only": "true", **often},
        windows=2,
    )
    place = Place(protocol, tmp_path, tmp_path / "runs", tmp_path / "results")
    trained = []

    def counted(root, config, keys, processes=1):
        trained.append(keys["job.dump_folder"])
        train_here(root, config, keys)

    monkeypatch.setattr(runs, "train", counted)
    with contextlib.chdir(tmp_path):
        fine_tune.main(["--corpus", str(corpus)], place)
        once = list(trained)
        fine_tune.main(["--corpus", str(corpus)], place)
        slower = replace(protocol, fine_tuning={**protocol.fine_tuning, "optimizer.lr": "1e-5"})
        with pytest.raises(ValueError, match=r"optimizer.lr = .*1e-05 is asked for now"):
            fine_tune.main(["--corpus", str(corpus)], replace(place, protocol=slower))
    assert trained == once and len(set(once)) == len(once) >= 8
    results = json.loads((place.results / "results.json").read_text())
    of_start = {(row["arm"], row["seed"], row["step"]): row for row in results["fine_tuning"]}
    for arm in ("baseline", "LET"):
        row = of_start[arm, 1, 4]
        assert STEPS in row["equal"] and row["curve"][0][0] == 0 and row["curve"][-1][0] == 2
        assert row["seen"][0] != row["seen"][1]  # it was another model afterwards
        start = Start(arm, 1, 4)
        model = fine_tune.seen_losses(place, [place.checkpoint(start)])
        assert model == [row["seen"][0]]
    rows = [row for row in results["comparisons"] if row["measure"] != "steps"]
    assert len(rows) == 6 and all(row["difference"]["low"] is not None for row in rows)
    report = (place.results / "report.md").read_text()
    assert "deciding differences exclude zero" in report and "## At equal loss" in report
    for name in ("curves", "differences"):
        assert (place.results / f"{name}.png").stat().st_size > 1000
