"""The loader's position: any ranks, workers and files; each document once, resumed exactly."""

import hashlib
import itertools
import json
from collections import Counter

import numpy as np
import pytest
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from datasets import load_dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import ByteLevel
from torchtitan.hf_datasets import DatasetConfig
from torchtitan.hf_datasets.text_datasets import DATASETS, HuggingFaceTextDataset

from let_titan.data.corpus import Corpus
from let_titan.data.files import corpus_digest, data_files
from let_titan.data.lanes import Lane, Place
from let_titan.data.lines import read_lines
from let_titan.data.loader import PileLoader, merged
from let_titan.data.policy import Policy
from let_titan.errors import ConfigError
from let_titan.tokenizer.build import document_encoder, load_tokenizer
from tests.numbered import (
    LENGTH,
    SHUFFLED,
    batch_ids,
    corpus,
    iter_lane,
    loader,
    take,
    write_corpus,
)
from tests.world import run_world


def joined(states):
    """What the ranks' states are after they asked each other."""
    parts = [json.loads(state["position"]) for state in states]
    assert len({part["sequences"] for part in parts}) == 1
    places = merged([part["places"] for part in parts])
    return {"position": json.dumps({**parts[0], "places": places})}


def play(folder, layout, state=None, **options):
    """Reads with each (ranks, batch, batches) in turn, resuming in between.

    Returns:
        the global batches, and the last state.
    """
    out = []
    for ranks, batch, batches in layout:
        loaders = [loader(folder, r, ranks, batch=batch, **options) for r in range(ranks)]
        if state:
            for each in loaders:
                each.load_state_dict(state)
        read = [take(each, batches) for each in loaders]
        out += [sorted(itertools.chain(*parts)) for parts in zip(*read, strict=True)]
        state = joined([each.state_dict() for each in loaders])
    return out, state


@pytest.mark.parametrize("options", [{}, SHUFFLED], ids=["in order", "shuffled"])
@pytest.mark.parametrize("lanes", [1, 4, 12])
def test_global_batches_do_not_depend_on_the_ranks(lanes, options, tmp_path):
    """12 sequences a batch on 4 -> 2 -> 3 ranks, over the end of the epoch and beyond."""
    write_corpus(tmp_path / "c")
    more = {"lanes": lanes, "options": options}
    wanted, _ = play(tmp_path / "c", [(1, 12, 60)], **more)
    found, state = play(tmp_path / "c", [(4, 3, 7), (2, 6, 1), (3, 4, 15), (6, 2, 37)], **more)
    assert found == wanted
    places = json.loads(state["position"])["places"]
    assert len(places) == lanes and all(place["epoch"] >= 2 for place in places.values())
    assert len(set(map(str, wanted))) > 50  # the epochs differ in where they are cut


def test_the_checkpoints_lanes_are_kept(tmp_path):
    """Started on 4 ranks without data.lanes, and resumed on 2 and 3."""
    write_corpus(tmp_path / "c")
    wanted, _ = play(tmp_path / "c", [(4, 3, 20)])
    found, _ = play(tmp_path / "c", [(4, 3, 5), (2, 6, 5), (3, 4, 10)])
    assert found == wanted


@pytest.mark.parametrize(
    ("n_files", "options", "workers"),
    [(files, options, 0) for files in (1, 5, 30) for options in ({}, SHUFFLED)]
    + [(5, SHUFFLED, 2)],
)
def test_no_document_is_repeated_or_skipped(n_files, options, workers, tmp_path):
    """One epoch on 4 -> 2 -> 3 ranks: every id as often as its document is long."""
    lengths = write_corpus(tmp_path / "c", n_files)
    seen, state = Counter(), None
    more = {"options": options, "infinite": False, "batch": 1, "workers": workers}
    for ranks, batches in ((4, 5), (2, 9), (3, 1000)):
        loaders = [loader(tmp_path / "c", r, ranks, **more) for r in range(ranks)]
        for each in loaders:
            each.load_state_dict(state or {})
        # The lanes end at different times; what is left is read lane by lane below.
        for parts in itertools.islice(zip(*loaders, strict=False), batches):
            seen.update(token for part in parts for row in batch_ids(part) for token in row)
            state = joined([each.state_dict() for each in loaders])
    state = json.loads(state["position"])
    assert state["lanes"] == 4
    for lane, place in state["places"].items():
        rest = Lane(corpus(tmp_path / "c", **options), int(lane), 4, 1, Place(**place), False)
        for sequence in iter_lane(rest):
            seen.update(sequence.tolist())
    assert seen == lengths


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_workers_read_the_same_and_resume_exactly(workers, tmp_path):
    """What they have read ahead is not in the state."""
    write_corpus(tmp_path / "c")
    options = {"lanes": 6, "options": SHUFFLED}
    plain = iter(loader(tmp_path / "c", 1, 2, **options))
    wanted = take(plain, 12)
    first = loader(tmp_path / "c", 1, 2, workers=workers, prefetch=3, **options)
    assert take(first, 5) == wanted[:5]
    state = joined([first.state_dict(), after(tmp_path / "c", 5, options)])
    for again in (workers, 0):
        second = loader(tmp_path / "c", 1, 2, workers=again, **options)
        second.load_state_dict(state)
        assert take(second, 7) == wanted[5:]


def test_a_worker_does_not_wait_for_threads_that_its_parent_has(tmp_path, monkeypatch):
    """tokenizers' pool does not survive a fork; told to use it all the same, a worker hung."""
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")
    tokenizer = Tokenizer(WordLevel({"[UNK]": 7}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = ByteLevel()

    def in_parallel(texts):
        return [np.array(e.ids) for e in tokenizer.encode_batch_fast([*texts, *["a b"] * 64])][
            : len(texts)
        ]

    in_parallel(["the pool of threads comes with the first batch"])
    write_corpus(tmp_path / "c")
    read = Corpus(data_files(f"{tmp_path}/c/*.jsonl"), read_lines, in_parallel, Policy())
    batches = PileLoader(read, {}, rank=0, ranks=1, batch=2, seq_len=LENGTH - 1, workers=1)
    assert take(batches, 1) == [[[7] * LENGTH] * 2]


def after(folder, batches, options):
    other = loader(folder, 0, 2, **options)
    take(other, batches)
    return other.state_dict()


def test_in_one_process_it_reads_what_torchtitan_reads(lab):
    """The twin is torchtitan's own packing over Hugging Face datasets, with a real tokenizer."""

    def stream(pattern):
        return load_dataset("json", data_files=pattern, split="train", streaming=True)

    tokenizer = load_tokenizer("assets/teachers/smollm2-135m")
    path = "assets/jargon/train.jsonl.zst"
    DATASETS["twin"] = DatasetConfig(path, stream, lambda sample: sample["text"])
    twin = HuggingFaceTextDataset("twin", path, tokenizer, seq_len=256, infinite=True)
    ours = Corpus(data_files(path), read_lines, document_encoder(tokenizer, True, True), Policy())
    lane = Lane(ours, 0, 1, 257)
    for inputs, labels in itertools.islice(twin, 1500):  # more than an epoch
        sequence = lane.next().ids
        assert sequence[:-1].tolist() == inputs["input"].tolist()
        assert sequence[1:].tolist() == labels.tolist()
    assert lane.place.epoch == 1
    del DATASETS["twin"]


def save(folder, steps):
    each = loader(folder / "c", dist.get_rank(), dist.get_world_size(), batch=3)
    take(each, steps)
    dcp.save({"dataloader": each}, checkpoint_id=folder / "checkpoint")
    return each.state_dict()


def resume(folder, steps, batch):
    each = loader(folder / "c", dist.get_rank(), dist.get_world_size(), batch=batch)
    dcp.load({"dataloader": each}, checkpoint_id=folder / "checkpoint")
    mine = take(each, steps)
    everyone = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, mine)
    return each.skipped(), [
        sorted(itertools.chain(*parts)) for parts in zip(*everyone, strict=True)
    ]


def test_dcp_saves_on_four_ranks_and_loads_on_two(tmp_path):
    write_corpus(tmp_path / "c")
    first = tmp_path / "c" / "0.jsonl"
    first.write_text("{}\n" * 24 + first.read_text())
    wanted, state = play(tmp_path / "c", [(4, 3, 9)])
    assert run_world(4, save, tmp_path, tmp_path, 4) == play(tmp_path / "c", [(4, 3, 4)])[1]
    skipped, found = run_world(2, resume, tmp_path, tmp_path, 5, 6)
    assert found == wanted[4:]
    places = json.loads(state["position"])["places"].values()
    assert skipped == dict(sum((Counter(place["skipped"]) for place in places), Counter()))
    assert 0 < skipped['no "text"'] <= 24


def test_another_corpus_or_number_of_lanes_is_refused(tmp_path):
    write_corpus(tmp_path / "c")
    options = {"batch": 1, "seq_len": 7, "rank": 0, "ranks": 1}
    state = PileLoader(corpus(tmp_path / "c"), {"corpus": "a"}, **options).state_dict()
    other = PileLoader(corpus(tmp_path / "c"), {"corpus": "b"}, **options)
    with pytest.raises(ConfigError, match=r"corpus = 'a', and this run 'b'.*exclude_from_loading"):
        other.load_state_dict(state)
    wide = PileLoader(corpus(tmp_path / "c"), {"corpus": "a"}, lanes=2, **options)
    with pytest.raises(ConfigError, match="lanes = 1, and this run 2"):
        wide.load_state_dict(state)


def test_a_corpus_may_move_and_must_keep_its_order(tmp_path):
    """Two folders' files in one folder come in the order of their names: the position is gone."""
    sizes = {"a/f1.jsonl": 20, "b/f0.jsonl": 30}
    for top, names in (("n", sizes), ("moved", sizes), ("flat", ("f1.jsonl", "f0.jsonl"))):
        for name, size in zip(names, sizes.values(), strict=True):
            (tmp_path / top / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / top / name).write_text("x" * size)
    nested, moved = (corpus_digest(data_files(f"{tmp_path}/{top}/*/*")) for top in ("n", "moved"))
    flat = data_files(f"{tmp_path}/flat/*")
    assert nested == moved != corpus_digest(flat)
    # Of checkpoints that were made before: an ordinary corpus's digest is what it was.
    names = repr([("f0.jsonl", 30), ("f1.jsonl", 20)])
    assert corpus_digest(flat) == hashlib.sha256(names.encode()).hexdigest()
