"""What decides which document comes when: files by epoch, weights by epoch, keys, and offsets."""

from types import SimpleNamespace

import pytest
import zstandard

from let_titan.build_data import pile_loader
from let_titan.data.corpus import Corpus
from let_titan.data.documents import Document, text_hash
from let_titan.data.files import File
from let_titan.data.lines import read_lines
from let_titan.data.policy import Policy
from let_titan.data.settings import Data
from let_titan.errors import ConfigError
from let_titan.tokenizer.build import load_tokenizer

OTHER = {
    "add_bos": False,
    "add_eos": False,
    "shuffle_buffer": 3,
    "shuffle_seed": 1,
    "weights": ["Test:2"],
    "validation_fraction": 0.1,
    "max_document_mib": 1,
}


def test_files_come_in_another_order_in_each_epoch_and_by_seed():
    files = [File(str(i), 10) for i in range(8)]

    def order(seed, epoch):
        corpus = Corpus(files, read_lines, list, Policy(), shuffle_seed=seed, shuffle_buffer=4)
        return [part.file.path for part in corpus.parts(epoch, 0, 1)]

    assert order(0, 0) == order(0, 0) and sorted(order(0, 0)) == sorted(order(0, 1))
    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)


def test_a_fraction_of_a_set_is_another_one_in_each_epoch():
    policy = Policy(weights={"A": 0.5})
    documents = [Document("", "A", text_hash(str(i).encode())) for i in range(400)]
    first, second = ([policy.copies(doc, epoch) for doc in documents] for epoch in (0, 1))
    assert 150 < sum(first) < 250 and 150 < sum(second) < 250
    assert 50 < sum(a and b for a, b in zip(first, second, strict=True)) < 150  # a quarter


@pytest.mark.parametrize("key", OTHER)
def test_a_position_is_of_the_keys_that_made_it(key, assets):
    section = SimpleNamespace(
        dataset_path=str(assets / "train.jsonl"),
        local_batch_size=1,
        seq_len=16,
        dataloader=SimpleNamespace(num_workers=0, prefetch_factor=None, pin_memory=False),
    )
    tokenizer = load_tokenizer(str(assets / "tokenizer"))

    def made(**keys):
        layout = {"lanes": 1, "rank": 0, "ranks": 1, "infinite": True}
        return pile_loader(Data(**keys), section, tokenizer, validation=False, **layout)

    state = made().state_dict()
    made().load_state_dict(state)
    with pytest.raises(ConfigError, match=f"{key} = "):
        made(**{key: OTHER[key]}).load_state_dict(state)


def test_offsets_reach_beyond_the_first_frames(tmp_path):
    lines = [f"line {i} ".encode() * (i + 1) + b"\n" for i in range(9)]
    path = tmp_path / "frames.jsonl.zst"
    path.write_bytes(b"".join(map(zstandard.ZstdCompressor().compress, lines)))
    file = File(str(path), path.stat().st_size)
    found = list(read_lines(file, 0, 0, 2**20))
    assert [line.data + b"\n" for line in found] == lines
    for i in range(1, len(found)):
        assert list(read_lines(file, i, found[i - 1].end, 2**20)) == found[i:]
