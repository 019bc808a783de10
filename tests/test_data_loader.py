"""The loader's position: any ranks, workers and files; each document once, resumed exactly."""

import io
import itertools
import json
import tracemalloc
from collections import Counter
from typing import ClassVar

import numpy as np
import pytest
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from datasets import load_dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import ByteLevel
from torchtitan.hf_datasets import DatasetConfig
from torchtitan.hf_datasets.text_datasets import DATASETS, HuggingFaceTextDataset

from let_titan.data.files import File, data_files
from let_titan.data.lanes import Corpus, Lane, Place, parts_of
from let_titan.data.lines import read_lines
from let_titan.data.loader import PileLoader, merged
from let_titan.data.policy import Policy
from let_titan.errors import ConfigError
from let_titan.tokenizer import document_encoder, load_tokenizer
from tests.support import run_world

LENGTH = 8  # ids of a sequence, labels' last one included


def encode(texts):
    """Every document becomes its own number, over and over: as many ids as its text is long."""
    return [np.full(len(text), int(text.split()[0]), dtype=np.int64) for text in texts]


def write_corpus(folder, n_files=5, documents=120):
    """Documents i of 5 to 30 ids, all of them ``i``, in files of unequal sizes."""
    rng = np.random.default_rng(0)
    rows = [f"{i:05d} " + "x" * int(rng.integers(0, 25)) for i in range(documents)]
    cuts = [0, *sorted(rng.choice(documents - 1, n_files - 1, replace=False) + 1), documents]
    folder.mkdir(exist_ok=True)
    for n, (begin, end) in enumerate(itertools.pairwise(cuts)):
        lines = (json.dumps({"text": text}) + "\n" for text in rows[begin:end])
        (folder / f"{n}.jsonl").write_text("".join(lines))
    return {i: len(text) for i, text in enumerate(rows)}


def corpus(folder, **options):
    return Corpus(data_files(f"{folder}/*.jsonl"), read_lines, encode, Policy(), **options)


def loader(folder, rank, ranks, *, options=None, batch=2, **more):
    return PileLoader(
        corpus(folder, **(options or {})),
        {},
        rank=rank,
        ranks=ranks,
        batch=batch,
        seq_len=LENGTH - 1,
        **more,
    )


def take(iterator, n):
    return [batch_ids(batch) for batch in itertools.islice(iterator, n)]


def batch_ids(batch):
    inputs, labels = batch[0]["input"], batch[1]
    assert inputs[:, 1:].equal(labels[:, :-1])
    return [[int(row[0]), *map(int, last)] for row, last in zip(inputs, labels, strict=True)]


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


SHUFFLED = {"shuffle_buffer": 7, "shuffle_seed": 3}


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


def iter_lane(lane):
    while True:
        try:
            yield lane.next().ids
        except StopIteration:
            return


@given(
    sizes=st.lists(st.integers(0, 10**13), min_size=1, max_size=40).filter(any),
    lanes=st.integers(1, 300),
)
@settings(deadline=None, max_examples=200)
def test_lanes_part_the_files_exactly_and_evenly(sizes, lanes):
    files = [File(str(i), size) for i, size in enumerate(sizes)]
    parts = [parts_of(files, lane, lanes) for lane in range(lanes)]
    for file in files:
        spans = [(part.low, part.high) for lane in parts for part in lane if part.file is file]
        assert [low for low, _ in spans[1:]] == [high for _, high in spans[:-1]]
        assert not spans or (spans[0][0], spans[-1][1]) == (0, 2**64)
        assert spans or not file.size
    wanted = sum(sizes) / lanes
    for lane in parts:
        share = sum(part.file.size * (part.high - part.low) / 2**64 for part in lane)
        assert share == pytest.approx(wanted, rel=1e-6, abs=1e-3)
    assert sum(map(len, parts)) <= len(sizes) + lanes - 1


class CountedFile(io.FileIO):
    """A file that counts the bytes that are read of it, by its name."""

    counts: ClassVar[Counter] = Counter()

    def read(self, size=-1):
        data = super().read(size)
        self.counts[self.name] += len(data)
        return data


def test_bytes_read_are_balanced_for_30_files_on_32_ranks(tmp_path, monkeypatch):
    """Of 30 equal files each rank reads two at most, and gets its 32nd of the documents."""
    (tmp_path / "c").mkdir()
    for i in range(30):
        rows = (json.dumps({"text": f"{i:05d} {j:06d}"}) + "\n" for j in range(64))
        (tmp_path / "c" / f"{i:02d}.jsonl").write_text("".join(rows))
    monkeypatch.setattr("let_titan.data.lines.open_file", lambda file: CountedFile(file.path))
    total = sum(file.size for file in data_files(f"{tmp_path}/c/*"))
    read, documents = [], []
    for rank in range(32):
        monkeypatch.setattr(CountedFile, "counts", Counter())
        mine = loader(tmp_path / "c", rank, 32, batch=1, infinite=False)
        documents.append(sum(len(row) for batch in mine for row in batch_ids(batch)) / 12)
        read.append(CountedFile.counts)
    assert max(sum(counts.values()) for counts in read) <= 2 * total / 30
    assert max(map(len, read)) <= 2
    everyone = sum(read, Counter())
    assert len(everyone) == 30 and sum(everyone.values()) <= 61 / 30 * total
    assert all(abs(count - 60) <= 5 for count in documents)


def test_the_shuffle_is_global_by_seed_and_anew_in_each_epoch(tmp_path):
    """Every document once an epoch, in an order that seed and epoch decide, files included."""
    lengths = write_corpus(tmp_path / "c")

    def epochs(seed):
        options = {"shuffle_buffer": 7, "shuffle_seed": seed}
        lane = Lane(corpus(tmp_path / "c", **options), 0, 1, 1)
        orders = {0: [], 1: []}
        while (number := int(lane.next().ids[0])) or True:
            if lane.place.epoch == 2:
                return list(orders.values())
            orders[lane.place.epoch].append(number)

    three, again, four = epochs(3), epochs(3), epochs(4)
    assert three == again
    orders = [*three, *four, sorted(three[0])]
    assert all(Counter(order) == lengths for order in orders)
    assert len(set(map(tuple, orders))) == 5
    # The first window is not the first file's: files are shuffled, too.
    assert len({order[0] for order in orders[:4]}) > 2


def test_the_shuffle_holds_one_window(tmp_path):
    """20 MB of text; 16 documents of 10 kB are shuffled at once."""
    rows = (json.dumps({"text": f"{i:05d} " + "x" * 10_000}) + "\n" for i in range(2000))
    (tmp_path / "0.jsonl").write_text("".join(rows))
    lane = Lane(corpus(tmp_path, shuffle_buffer=16), 0, 1, 4096, infinite=False)
    tracemalloc.start()
    count = sum(1 for _ in iter_lane(lane))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 2000 * 10_006 // 4096
    assert peak < 8 * 2**20  # 1 MiB is read at once, and ids take 8 bytes each


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


def test_more_lanes_than_documents_is_told(tmp_path):
    write_corpus(tmp_path / "c", n_files=1, documents=3)
    few = loader(tmp_path / "c", 0, 1, lanes=50, batch=50)
    with pytest.raises(ConfigError, match=r"of 50 has no document.*data\.lanes = 1"):
        take(few, 1)
    with pytest.raises(ConfigError, match=r"of 50 has no document"):
        take(loader(tmp_path / "c", 0, 1, lanes=50, batch=50, workers=2), 1)
