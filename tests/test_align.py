"""Training under a teacher with a tokenizer of its own: batches, gradients, resumes, layouts."""

import json
import multiprocessing
import shutil
from itertools import islice, pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torchtitan.components.loss import IGNORE_INDEX
from torchtitan.models.llama3 import Transformer
from transformers import AutoModel

from let_titan.checks import find_mistakes
from let_titan.data.align import Special, Twin
from let_titan.data.teacher_text import TeacherText
from let_titan.data.tokenize import main as tokenize
from let_titan.encoder import load_encoder
from let_titan.preflight import examine
from let_titan.preflight.gpus import GPUS
from let_titan.preflight.table import sections
from let_titan.spec import build_loader
from let_titan.student import FLAVORS
from let_titan.teacher import read_encoder
from let_titan.tokenizer import load_tokenizer
from let_titan.train import LetTrainer
from tests.conftest import TEXTS, VOCAB, make_teacher, make_tokenizer
from tests.context_parallel import checked, stand_in
from tests.layouts import CP, FSDP, INTERLEAVED, PP, TP
from tests.support import (
    SEQ_LEN,
    Lab,
    gradients,
    logged,
    of_all_stages,
    outside_the_world,
    relative_error,
    run_world,
    weights,
    worst_gradient,
)
from tests.test_align_map import by_the_words
from tests.test_alignment import reference
from tests.test_documents import spans
from tests.test_documents import stand_in as on_a_cpu
from tests.test_resume import assert_resumes_exactly, uninterrupted_and_resumed
from tests.test_run_folder import leave

LET = {"k": 2, "lambda_0": 0.5, "s_stop": 4}


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    """Folders of teachers: "equal" has the student's tokenizer, "other" one of 420 ids, no BOS."""
    folder = tmp_path_factory.mktemp("teachers")
    make_tokenizer(folder / "equal")
    make_teacher(folder / "equal", VOCAB)
    make_tokenizer(folder / "other", 420, bos=None)
    make_teacher(folder / "other", 420)
    make_tokenizer(folder / "short", 300)
    make_teacher(folder / "short", 300, context=48)
    return folder


def aligned(teachers, name, **changes):
    return {
        "teacher__checkpoint": str(teachers / name),
        "teacher__tokenizer": "align",
        **changes,
    }


def loader_of(config):
    return build_loader(1, 0, load_tokenizer(config.model.hf_assets_path), config)


def offsets(tokenizer, text):
    """Where a tokenizer's ids end in an ASCII text, by its own account."""
    read = tokenizer.encode(text, add_special_tokens=False)
    return read.ids, [end for _, end in read.offsets]


def wanted_rows(teacher):
    """The corpus's packed rows by loops: the student's ids, the teacher's ids, the targets."""
    student = load_tokenizer(str(teacher.parent / "equal"))
    theirs = read_encoder(str(teacher))
    tokenizer = load_tokenizer(str(teacher)).tokenizer
    special = Special(theirs.bos_id, theirs.eos_id)
    stream = []
    for text in TEXTS[:100]:
        ids, ends = offsets(student.tokenizer, text)
        twin = Twin(
            np.array([0, *ends, len(text)]), True, True, *map(np.array, offsets(tokenizer, text))
        )
        stream += [(twin, i, index) for i, index in enumerate([0, *ids, 1])]
    for begin in range(0, len(stream) - SEQ_LEN, SEQ_LEN + 1):
        row = stream[begin : begin + SEQ_LEN]
        cuts = [0, *(i for i in range(1, SEQ_LEN) if row[i][0] is not row[i - 1][0]), SEQ_LEN]
        read, targets = [], []
        for a, b in pairwise(cuts):
            ids, found = by_the_words(row[a][0], row[a][1], row[b - 1][1] + 1, special)
            targets += [t if t < 0 else t + len(read) for t in found]
            read += ids
        yield [index for _, _, index in row], read, targets


@pytest.mark.parametrize("name", ["equal", "other", "short"])
def test_the_loaders_rows_are_those_of_loops(name, lab, teachers):
    context = 48 if name == "short" else 128
    config = lab.config(LET, **aligned(teachers, name), training__local_batch_size=3)
    wanted = wanted_rows(teachers / name)
    for inputs, _ in islice(loader_of(config), 4):
        lengths = []
        for i, (ids, read, targets) in enumerate(islice(wanted, 3)):
            assert inputs["input"][i].tolist() == ids
            found = inputs["teacher_input"][i]
            lengths.append(min(len(read), context))
            assert found[found >= 0].tolist() == read[:context]
            assert inputs["teacher_targets"][i].tolist() == [
                t if t < context else -1 for t in targets
            ]
        assert inputs["teacher_input"].shape[1] == min(-(-max(lengths) // 64) * 64, context)
        assert "teacher_positions" not in inputs


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_loader_gives_the_same(workers, lab, teachers):
    changes = {
        **aligned(teachers, "other"),
        "data__lanes": 2,
        "data__shuffle_buffer": 5,
        "training__local_batch_size": 2,
    }
    wanted = list(islice(loader_of(lab.config({**LET, "s_stop": 5}, **changes)), 7))
    changes["training__dataloader.num_workers"] = workers
    first = loader_of(lab.config({**LET, "s_stop": 5}, **changes))
    found = list(islice(first, 3))
    second = loader_of(lab.config({**LET, "s_stop": 5}, **changes))
    second.load_state_dict(first.state_dict())
    found += islice(second, 4)
    for i, ((got, _), (expected, _)) in enumerate(zip(found, wanted, strict=True)):
        assert got.keys() == expected.keys()
        assert ("teacher_input" in got) == (i < 5)  # nothing is read for a teacher that has left
        for name in expected:
            assert got[name].equal(expected[name])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_teacher_that_left_early_is_not_read_for(workers, lab, teachers, monkeypatch):
    """By running workers neither, once they know; the student's ids are what they were."""
    asked, known = multiprocessing.RawValue("q", 0), TeacherText.twins

    def twins(self, texts, encoded):
        asked.value += 1
        return known(self, texts, encoded)

    monkeypatch.setattr(TeacherText, "twins", twins)
    keys = {"data__lanes": 2, "training__dataloader.num_workers": workers, "training__steps": 40}
    config = lab.config({**LET, "s_stop": 40}, **aligned(teachers, "other"), **keys)
    wanted = [inputs["input"] for inputs, _ in islice(loader_of(config), 40)]
    loader = loader_of(config)
    batches, found = iter(loader), []
    for i in range(40):
        if i == 3:
            loader.teacher_left()
        found.append(next(batches)[0])
        if i == 12:  # past what was read ahead
            then = asked.value
    assert asked.value == then
    assert [("teacher_input" in inputs) for inputs in found] == [True] * 3 + [False] * 37
    assert all(got["input"].equal(ids) for got, ids in zip(found, wanted, strict=True))


def run(config, steps=1):
    """Trains ``steps``; returns (weights before, batches, gradients, lines)."""
    trainer = LetTrainer(config)
    try:
        before = of_all_stages(weights, trainer)
        seen = []
        taken = trainer.phase.watched

        def watched(batches, step):
            for batch in taken(batches, step):
                seen.append(({k: v.clone() for k, v in batch[0].items()}, batch[1].clone()))
                yield batch

        trainer.phase.watched = watched
        batches = trainer.batch_generator(trainer.dataloader)
        with logged(trainer) as lines:
            for trainer.step in range(1, steps + 1):
                trainer.train_step(batches)
        maps = gradients(torch.nn.ModuleList(trainer.phase.maps.maps))
        return before, seen, of_all_stages(gradients, trainer) | maps, lines
    finally:
        trainer.close()


FIGURES = ("loss_metrics/global_avg_loss", "grad_norm", "let/align_loss", "let/align_cosine")


def figures(lines):
    return [{key: line.get(key) for key in FIGURES} for line in lines if "grad_norm" in line]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"training__local_batch_size": 2, "training__global_batch_size": 4},
        {"let__teacher_norm": "center", "let__width_map": "orthogonal"},
    ],
    ids=["plain", "accumulation", "moments"],
)
def test_equal_tokenizers_are_the_same_bit_for_bit(changes, lab, teachers):
    let = {**LET, **{k[5:]: v for k, v in changes.items() if k.startswith("let__")}}
    rest = {k: v for k, v in changes.items() if not k.startswith("let__")}
    same = lab.config(let, teacher__checkpoint=str(teachers / "equal"), **rest)
    _, _, wanted, lines = run(same, 5)
    _, _, found, own_lines = run(lab.config(let, **aligned(teachers, "equal"), **rest), 5)
    assert found.keys() == wanted.keys()
    assert all(found[name].equal(wanted[name]) for name in wanted)
    assert figures(own_lines) == figures(lines)
    shares = [line["let/align_target_share"] for line in own_lines if line.get("let/lambda")]
    assert shares == [1.0] * 4
    for key in ("let/teacher_flops", "let/student_flops"):
        assert [line[key] for line in own_lines if key in line] == [
            line[key] for line in lines if key in line
        ]


def by_hand(teachers, name, initial, batches):
    """NLL + lambda_0 * L_proj in float64, one sequence and one state after the other."""
    args = FLAVORS["debug"]
    args.vocab_size, args.max_seq_len = VOCAB, SEQ_LEN
    model = Transformer(args)
    model.load_state_dict(initial, strict=False)
    model.double()
    teacher = AutoModel.from_pretrained(teachers / name).eval()
    valid = sum(int((labels != IGNORE_INDEX).sum()) for _, labels in batches)
    nll = alignment = torch.zeros(())
    count = 0
    for inputs, labels in batches:
        for i, wanted in enumerate(labels):
            read = inputs["teacher_input"][i]
            with torch.no_grad():
                states = teacher(read[read >= 0].unsqueeze(0)).last_hidden_state[0]
            hidden = model.tok_embeddings(inputs["input"][i : i + 1])
            for block, layer in model.layers.items():
                hidden = layer(hidden, model.freqs_cis, None)
                if int(block) + 1 != LET["k"]:
                    continue
                for token, target in enumerate(inputs["teacher_targets"][i].tolist()):
                    if target >= 0 and wanted[token] != IGNORE_INDEX:
                        one = torch.ones(1, 1, dtype=torch.bool)
                        pair = hidden[:, token : token + 1], states[None, target : target + 1]
                        alignment = alignment + reference(*pair, one)
                        count += 1
            logits = model.output(model.norm(hidden)).flatten(0, 1)
            nll = nll + F.cross_entropy(logits, wanted, reduction="sum")
    nll, alignment = nll / valid, alignment / count
    (nll + LET["lambda_0"] * alignment).backward()
    return gradients(model), nll.item(), alignment.item(), count / valid


def test_gradients_are_those_of_a_loop_in_float64(lab, teachers):
    """Accumulated over two microbatches of other widths and other shares of targets."""
    changes = {"training__local_batch_size": 2, "training__global_batch_size": 4}
    initial, batches, found, lines = run(lab.config(LET, **aligned(teachers, "short"), **changes))
    wanted, nll, alignment, share = by_hand(teachers, "short", initial, batches)
    assert worst_gradient(found, wanted) < 2e-5
    (line,) = [line for line in lines if "grad_norm" in line]
    assert line["loss_metrics/global_avg_loss"] == pytest.approx(nll, rel=1e-6)
    assert line["let/align_loss"] == pytest.approx(alignment, rel=1e-5)
    assert line["let/align_target_share"] == pytest.approx(share)
    assert 0.2 < share < 0.9
    read = torch.cat([inputs["teacher_input"].flatten() for inputs, _ in batches])
    padding = (read < 0).double().mean().item()
    assert line["let/teacher_padding_share"] == pytest.approx(padding)


def test_a_step_without_any_target_is_a_step_of_the_nll(lab, teachers):
    config = lab.config(LET, **aligned(teachers, "other"))
    trainer = LetTrainer(config)
    inputs, labels = next(iter(trainer.dataloader))
    inputs["teacher_targets"].fill_(-1)
    trainer.step = 1
    trainer.train_step(trainer.batch_generator([(inputs, labels)]))
    found = gradients(trainer.model_parts[0])
    trainer.close()
    plain = run(lab.config(None))[2]
    assert worst_gradient(found, plain) < 1e-6


def test_a_run_leaves_its_shares_and_what_the_teacher_read(lab, teachers):
    train, _, summary = leave(lab, LET, **aligned(teachers, "short"), training__steps=6)
    shares = [(line.get("align_target_share"), line.get("teacher_padding_share")) for line in train]
    assert all(0 < target < 1 and 0 <= padding < 1 for target, padding in shares[:4])
    assert shares[4:] == [(None, None)] * 2
    flops = [line["teacher_flops"] for line in train]
    assert flops[4:] == flops[3:4] * 2
    each = summary["teacher"]["flops_per_token"]
    assert all(count % each == 0 for count in flops)
    assert flops[3] // each == 4 * 4 * 48  # rows of the teacher's context, padding included


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_resumes_exactly(workers, assets, tmp_path, teachers):
    changes = {"data__lanes": 2, "training__dataloader.num_workers": workers}
    results = uninterrupted_and_resumed(assets, tmp_path, **aligned(teachers, "short"), **changes)
    lines = [line for line in results["whole"]["lines"] if "loss" in line]
    assert [("align_target_share" in line) for line in lines] == [True] * 3 + [False] * 3
    assert_resumes_exactly(results)


def test_a_run_keeps_its_teachers_tokenizer(lab, teachers):
    keys = {"checkpoint__enable": True, "checkpoint__interval": 2, "training__steps": 4}
    leave(lab, LET, **keys, teacher__checkpoint=str(teachers / "equal"))
    shutil.rmtree(lab.folder / "run" / "checkpoint" / "step-4")
    (mistake,) = told(lab, **keys, **aligned(teachers, "equal"))
    assert "teacher's tokenizer was" in mistake and 'set teacher.tokenizer = "same"' in mistake


def told(lab, let=LET, **changes):
    return [str(mistake) for mistake in find_mistakes(lab.parsed(let, **changes), 1)]


def test_what_it_does_not_go_with_is_a_sentence(lab, teachers):
    assert told(lab, **aligned(teachers, "other")) == []
    (none,) = told(lab, teacher__tokenizer="align")
    assert "needs the teacher's tokenizer" in none and "brings none" in none
    (other,) = told(lab, **aligned(teachers, "other", training__dataset="c4_test"))
    assert "needs training.dataset = 'pile'" in other
    distilled = told(lab, None, **aligned(teachers, "other", distill__method="rkd"))
    assert "cannot be used with distill.method = 'rkd'" in distilled[0]
    (same,) = told(lab, teacher__checkpoint=str(teachers / "other"))
    assert same.endswith('or, without [distill], teacher.tokenizer = "align".')
    # A teacher that sees less than a sequence reads what it can.
    assert told(lab, **aligned(teachers, "short")) == []
    for theirs, says in ((None, "has none of its ids"), ("short", "has ids of another tokenizer")):
        pattern = shards(lab, lab.folder / f"{theirs}", theirs and teachers / theirs)
        (mistake,) = told(lab, **aligned(teachers, "other", training__dataset_path=pattern))
        assert says in mistake and "make the shards with --teacher-tokenizer" in mistake


def shards(lab, folder, teacher):
    """Makes shards of the corpus, with a teacher's ids; returns their pattern."""
    train, tokenizer = (str(lab.assets / name) for name in ("train.jsonl", "tokenizer"))
    own = ["--teacher-tokenizer", str(teacher)] if teacher else []
    assert tokenize([train, "--tokenizer", tokenizer, "--out", str(folder), *own]) == 0
    return str(folder / "*.arrow")


def test_shards_with_the_teachers_ids_give_what_the_text_gives(lab, teachers):
    pattern = shards(lab, lab.folder / "shards", teachers / "other")
    found, wanted = (
        list(islice(loader_of(lab.config({**LET, "s_stop": 4}, **changes)), 6))
        for changes in (
            aligned(teachers, "other", training__dataset_path=pattern),
            aligned(teachers, "other"),
        )
    )
    for (got, labels), (expected, wanted_labels) in zip(found, wanted, strict=True):
        assert got.keys() == expected.keys() and labels.equal(wanted_labels)
        assert all(got[name].equal(expected[name]) for name in expected)
    # A baseline, and a teacher with the student's tokenizer, read the same shards.
    plain = loader_of(lab.config(None, training__dataset_path=pattern))
    assert next(iter(plain))[0]["input"].equal(wanted[0][0]["input"])


def test_a_document_that_is_not_spelled_is_so_in_shards_too(lab, teachers, tmp_path):
    make_tokenizer(tmp_path / "nfc")
    path = tmp_path / "nfc" / "tokenizer.json"
    content = json.loads(path.read_text()) | {"normalizer": {"type": "NFC"}}
    path.write_text(json.dumps(content))
    ours, theirs = (load_encoder(str(folder)) for folder in (lab.assets / "tokenizer", path.parent))
    reader = TeacherText(ours, theirs, True, True, None, 1)
    texts = ["caf\u00e9 one", "cafe\u0301 two"]
    encoded = ours.documents(True, True)(texts)
    kept = reader.ids(texts, encoded)
    assert [len(ids) > 0 for ids in kept] == [True, False]
    for twin, ids, own in zip(reader.twins(texts, encoded), encoded, kept, strict=True):
        again = reader.stored(ids, own)
        assert (twin is None) == (again is None)
        assert twin is None or all(map(np.array_equal, twin, again))


def test_a_tokenizer_that_changes_text_or_has_too_many_ids_is_refused(lab, teachers, tmp_path):
    folder = tmp_path / "lower"
    make_tokenizer(folder, 420)
    make_teacher(folder, 400)
    (ids,) = told(lab, **aligned(tmp_path, "lower"))
    assert "knows 400 ids and the tokenizer in" in ids and "has 420" in ids
    content = json.loads((folder / "tokenizer.json").read_text())
    content["normalizer"] = {"type": "Lowercase"}
    (folder / "tokenizer.json").write_text(json.dumps(content))
    changed = told(lab, **aligned(tmp_path, "lower"))
    assert "the teacher's tokenizer in" in changed[0] and "changes text such as" in changed[0]
    student = told(lab, **aligned(teachers, "other", model__hf_assets_path=str(folder)))
    assert "the student's tokenizer in" in student[0]


def test_what_follows_changes_no_state(lab, teachers):
    """Through loader, padding and the teacher itself: two corpora that part within a document."""
    texts = [TEXTS[7] + end for end in ("brown fox", "!?!? 3", " lazy" * 40)]
    found = []
    for i, text in enumerate(texts):
        path = lab.folder / f"{i}.jsonl"
        path.write_text(json.dumps({"text": text + TEXTS[20] * 3}) + "\n")
        changes = aligned(teachers, "other", training__dataset_path=str(path))
        trainer = LetTrainer(lab.config(LET, training__local_batch_size=1, **changes))
        trainer.phase.load()
        inputs, labels = next(iter(trainer.dataloader))
        found.append((inputs["input"][0], *trainer.phase.whole_states(inputs, labels)))
        trainer.close()
    ids, mask, states = found[0]
    for other_ids, other_mask, other_states in found[1:]:
        common = int((ids == other_ids).long().cumprod(0).sum()) - 4
        assert 20 < common < 60
        assert mask[0, :common].equal(other_mask[0, :common])
        seen = mask[0, :common]
        assert relative_error(other_states[0, :common][seen], states[0, :common][seen]) < 1e-5
        assert relative_error(other_states[0][mask[0]], states[0][mask[0]]) > 1e-2


def test_documents_are_kept_apart_in_the_teachers_row_too(lab, teachers):
    keys = aligned(teachers, "other", data__document_attention=True, training__seq_len=96)
    with on_a_cpu():
        trainer = LetTrainer(lab.parsed(LET, **keys))
    trainer.phase.load()
    inputs, labels = next(iter(trainer.dataloader))
    ids, positions, targets = (inputs[f"teacher_{n}"] for n in ("input", "positions", "targets"))
    mask, states = trainer.phase.whole_states(inputs, labels)
    trainer.close()
    model = AutoModel.from_pretrained(teachers / "other").eval()
    seen = 0
    for row, span in spans(positions):
        if ids[row, span.start] < 0:
            continue  # padding
        with torch.no_grad():
            alone = model(ids[row : row + 1, span]).last_hidden_state[0]
        here = (targets[row] >= span.start) & (targets[row] < span.stop)
        assert mask[row].equal(targets[row] >= 0)
        wanted = alone[targets[row][here].long() - span.start]
        assert relative_error(states[row][here], wanted) < 1e-5
        seen += span.start > 0
    assert seen > 2


@pytest.mark.parametrize("name", ["equal", "short"])
def test_preflight_measures_the_pair(name, lab, teachers):
    let = {**LET, "s_stop": 300}
    config = lab.parsed(let, **aligned(teachers, name, training__steps=400))
    with outside_the_world():
        report = examine(config, 2, GPUS["a100"])
    assert report.findings.mistakes == []
    reading = report.price["teacher_reading"]
    batches = [batch for batch, _ in islice(loader_of(config), 2**16 // (4 * SEQ_LEN))]
    read = torch.cat([batch["teacher_input"].flatten() for batch in batches])
    found = torch.cat([batch["teacher_targets"].flatten() for batch in batches])
    assert reading["tokens"] == len(found) == 2**16
    assert reading["positions_per_token"] == pytest.approx(len(read) / 2**16)
    assert reading["target_share"] == pytest.approx((found >= 0).double().mean().item())
    assert reading["padding_share"] == pytest.approx((read < 0).double().mean().item())
    equal = name == "equal"
    assert (reading["same_needs"] == "") == equal
    assert equal or "differs from the teacher's" in reading["same_needs"]
    cost, each = report.price["cost"], report.price["teacher"]["flops_per_token"]
    with_it, without = cost["flops_per_token_in_let_phase"], cost["flops_per_token_after"]
    assert with_it - without == round(each * len(read) / 2**16)
    assert all(title in sections(report.price) for title in ("teacher", "its reading"))


def test_preflight_says_what_it_could_not_measure(lab, teachers):
    config = lab.parsed(LET, **aligned(teachers, "other", model__hf_assets_path="SmolLM-135M"))
    with outside_the_world():
        report = examine(config, 2, GPUS["a100"])
    assert report.findings.mistakes == []
    assert any("is priced as one" in sentence for sentence in report.findings.unchecked)
    assert any("were not read" in sentence for sentence in report.findings.unchecked)


LAYOUTS = {
    "FSDP2, accumulation": {**FSDP, "training__local_batch_size": 2, "teacher__placement": "shard"},
    "TP": {**TP, "training__local_batch_size": 8},
    "CP": {**CP, "training__local_batch_size": 8},
    "PP": {**PP, "training__local_batch_size": 8},
    "PP, interleaved": {**INTERLEAVED, "training__local_batch_size": 4},
}


VARIANTS = {
    "linear": {"width_map": "linear"},
    "cca": {"loss": "cca", "cca_every": 1, "cca_ridge": 0.1},
}
"""Their second step is looked at: CCA's first has no gradient."""


def in_layout(assets, folder, teachers, layout, let=None):
    changes = {"data__lanes": 2, "training__global_batch_size": 8, **layout}
    config = Lab(assets, folder).parsed(LET | (let or {}), **aligned(teachers, "short", **changes))
    if layout.items() >= CP.items():
        checked(config)
    else:
        assert find_mistakes(config) == []
    _, _, found, lines = run(config, 1 if let is None else 2)
    return found, [line for line in lines if "grad_norm" in line]


def in_each(assets, folder, teachers):
    with stand_in():
        plain = {name: in_layout(assets, folder, teachers, keys) for name, keys in LAYOUTS.items()}
        variants = {
            (name, layout): in_layout(assets, folder, teachers, LAYOUTS[layout], let)
            for name, let in VARIANTS.items()
            for layout in ("FSDP2, accumulation", "CP")
        }
        return plain, variants


def test_layouts_equal_one_process(assets, tmp_path, teachers):
    one = {"training__local_batch_size": 8}
    wanted, (line,) = in_layout(assets, tmp_path, teachers, one)
    plain, variants = run_world(2, in_each, tmp_path, assets, tmp_path, teachers)
    for (name, layout), (found, _) in variants.items():
        twin, _ = in_layout(assets, tmp_path, teachers, one, VARIANTS[name])
        assert (len(found) > len(wanted)) == (name == "linear")
        bound = 1e-3 if name == "cca" else 1e-4  # as in tests/test_variants.py
        assert worst_gradient(found, twin) < bound, (name, layout)
    for name, (found, lines) in plain.items():
        assert worst_gradient(found, wanted) < 1e-5, name
        for key in (*FIGURES, "let/align_target_share"):
            assert lines[0][key] == pytest.approx(line[key], rel=1e-5), (name, key)
