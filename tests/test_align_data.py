"""What a loader gives for a teacher with a tokenizer of its own; from text and from shards."""

import json
import multiprocessing
from itertools import accumulate, islice, pairwise

import numpy as np
import pytest
import torch
from transformers import AutoModel

from let_titan.data.align import Special, Twin
from let_titan.data.teacher_text import TeacherText
from let_titan.teacher import read_encoder
from let_titan.tokenizer.build import load_tokenizer
from let_titan.tokenizer.encoder import load_encoder
from let_titan.train import LetTrainer
from tests.align_runs import LET, aligned, end_to_end, equal, loader_of, shards
from tests.conftest import TEXTS, make_tokenizer
from tests.support import SEQ_LEN, relative_error
from tests.test_align_map import by_the_words
from tests.test_documents import stand_in as on_a_cpu


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
def test_the_loaders_rows_are_those_of_loops(name, lab, readers):
    context = 48 if name == "short" else 128
    config = lab.config(LET, **aligned(readers, name), training__local_batch_size=3)
    wanted = wanted_rows(readers / name)
    for inputs, _ in islice(loader_of(config), 4):
        rows = zip(inputs["input"], end_to_end(inputs), islice(wanted, 3), strict=True)
        for row, (found, found_targets), (ids, read, targets) in rows:
            assert row.tolist() == ids
            assert found.tolist() == read[:context]
            assert found_targets.tolist() == [t if t < context else -1 for t in targets]
        assert all(len(pieces) == 1 for pieces in inputs["teacher_pieces"])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_loader_gives_the_same(workers, lab, readers):
    changes = {
        **aligned(readers, "other"),
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
        assert equal(got, expected)
        assert ("teacher_input" in got) == (i < 5)  # nothing is read for a teacher that has left


@pytest.mark.parametrize("workers", [0, 2])
def test_a_teacher_that_left_early_is_not_read_for(workers, lab, readers, monkeypatch):
    """By running workers neither, once they know; the student's ids are what they were."""
    asked, known = multiprocessing.RawValue("q", 0), TeacherText.twins

    def twins(self, texts, encoded):
        asked.value += 1
        return known(self, texts, encoded)

    monkeypatch.setattr(TeacherText, "twins", twins)
    keys = {"data__lanes": 2, "training__dataloader.num_workers": workers, "training__steps": 40}
    config = lab.config({**LET, "s_stop": 40}, **aligned(readers, "other"), **keys)
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


def test_shards_with_the_teachers_ids_give_what_the_text_gives(lab, readers):
    pattern = shards(lab, lab.folder / "shards", readers / "other")
    found, wanted = (
        list(islice(loader_of(lab.config({**LET, "s_stop": 4}, **changes)), 6))
        for changes in (
            aligned(readers, "other", training__dataset_path=pattern),
            aligned(readers, "other"),
        )
    )
    for (got, labels), (expected, wanted_labels) in zip(found, wanted, strict=True):
        assert equal(got, expected) and labels.equal(wanted_labels)
    # A baseline, and a teacher with the student's tokenizer, read the same shards.
    plain = loader_of(lab.config(None, training__dataset_path=pattern))
    assert next(iter(plain))[0]["input"].equal(wanted[0][0]["input"])


def test_a_document_that_is_not_spelled_is_so_in_shards_too(lab, readers, tmp_path):
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


def test_what_follows_changes_no_state(lab, readers):
    """Through loader, padding and the teacher itself: two corpora that part within a document."""
    texts = [TEXTS[7] + end for end in ("brown fox", "!?!? 3", " lazy" * 40)]
    found = []
    for i, text in enumerate(texts):
        path = lab.folder / f"{i}.jsonl"
        path.write_text(json.dumps({"text": text + TEXTS[20] * 3}) + "\n")
        changes = aligned(readers, "other", training__dataset_path=str(path))
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


@pytest.mark.parametrize("packed", [True, False], ids=["end to end", "side by side"])
def test_documents_are_kept_apart_in_the_teachers_row_too(packed, lab, readers, monkeypatch):
    monkeypatch.setattr("let_titan.teacher.rows.takes_pieces", lambda config: packed)
    keys = aligned(readers, "other", data__document_attention=True, training__seq_len=96)
    with on_a_cpu():
        trainer = LetTrainer(lab.parsed(LET, **keys))
    trainer.phase.load()
    inputs, labels = next(iter(trainer.dataloader))
    rows, pieces = list(end_to_end(inputs)), inputs["teacher_pieces"]
    mask, states = trainer.phase.whole_states(inputs, labels)
    trainer.close()
    model = AutoModel.from_pretrained(readers / "other").eval()
    seen = 0
    for row, (ids, targets) in enumerate(rows):
        assert mask[row].equal(targets >= 0)
        ends = [0, *accumulate(pieces[row])]
        for begin, end in pairwise(ends):
            with torch.no_grad():
                alone = model(ids[None, begin:end]).last_hidden_state[0]
            here = (targets >= begin) & (targets < end)
            wanted = alone[targets[here].long() - begin]
            assert relative_error(states[row][here], wanted) < 1e-5
            seen += begin > 0
    assert seen > 2
