"""Lanes part a corpus evenly, and shuffle it by seed within one window."""

import dataclasses
import io
import json
import tracemalloc
from collections import Counter
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from let_titan.data.corpus import parts_of
from let_titan.data.files import File, data_files
from let_titan.data.lanes import Lane
from let_titan.data.policy import Policy
from let_titan.errors import ConfigError
from tests.numbered import batch_ids, corpus, iter_lane, loader, take, write_corpus


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


def test_more_lanes_than_documents_is_told(tmp_path):
    write_corpus(tmp_path / "c", n_files=1, documents=3)
    few = loader(tmp_path / "c", 0, 1, lanes=50, batch=50)
    with pytest.raises(ConfigError, match=r"of 50 has no document.*data\.lanes = 1"):
        take(few, 1)
    with pytest.raises(ConfigError, match=r"of 50 has no document"):
        take(loader(tmp_path / "c", 0, 1, lanes=50, batch=50, workers=2), 1)


def test_an_epoch_that_draws_nothing_is_passed_over(tmp_path):
    """One document of weight 0.1: most epochs have none of it; resumed, the same ones are."""
    (tmp_path / "0.jsonl").write_text('{"text": "00007"}\n{}\n')
    sparse = dataclasses.replace(corpus(tmp_path), policy=Policy(weights={"": 0.1}))
    lane = Lane(sparse, 0, 1, 5)
    read = [(lane.next().ids.tolist(), lane.place, dict(lane.skipped)) for _ in range(8)]
    epochs = [place.epoch for _, place, _ in read]
    assert epochs == sorted(set(epochs)) and epochs[-1] > 20
    for i, (_, place, _) in enumerate(read[:-1]):
        again = Lane(sparse, 0, 1, 5, place)
        assert (again.next().ids.tolist(), again.place, dict(again.skipped)) == read[i + 1]
    never = dataclasses.replace(corpus(tmp_path), policy=Policy(weights={"": 0}))
    with pytest.raises(ConfigError, match=r"Lane 0 of 1 has no document.*data\.weights"):
        Lane(never, 0, 1, 5).next()


def test_a_set_that_is_left_out_at_the_end_of_the_data_ends_no_run(tmp_path):
    sets = (("00007", "kept"), ("00008", "left out"))
    rows = [{"text": text, "meta": {"pile_set_name": name}} for text, name in sets]
    (tmp_path / "0.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    policy = Policy(weights={"left out": 0})
    lane = Lane(dataclasses.replace(corpus(tmp_path), policy=policy), 0, 1, 5)
    read = [(lane.next().ids.tolist(), lane.place.epoch) for _ in range(3)]
    assert [epoch for _, epoch in read] == [0, 1, 2] and len({tuple(ids) for ids, _ in read}) == 1


@pytest.mark.parametrize("lanes", [1, 2])
def test_a_corpus_of_another_format_is_called_so(lanes, tmp_path):
    """More data, other lanes or other weights would not help."""
    (tmp_path / "0.jsonl").write_text('{"content": "00007"}\n' * 4 + "{\n" * 2)
    lane = Lane(corpus(tmp_path), 0, lanes, 5)
    with pytest.raises(ConfigError, match=r'all its lines are bad \(.*no "text"\).*on each line'):
        lane.next()


def test_validation_that_nothing_is_held_out_for_names_the_fraction(tmp_path):
    """It has one lane whatever data.lanes says."""
    write_corpus(tmp_path, n_files=1, documents=3)
    policy = Policy(held_out=1e-6, validation=True)
    lane = Lane(dataclasses.replace(corpus(tmp_path), policy=policy), 0, 1, 5)
    with pytest.raises(ConfigError, match=r"data\.validation_fraction = 1e-06 holds out no doc"):
        lane.next()
