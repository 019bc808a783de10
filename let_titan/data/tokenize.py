"""python -m let_titan.data.tokenize PATTERN --tokenizer FOLDER --out FOLDER

Turns each file of a corpus into a token shard, without torch. If it was interrupted, the same
command goes on with the files that have no shard yet.
"""

import argparse
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from let_titan.data.documents import Document
from let_titan.data.files import File, data_files
from let_titan.data.policy import Policy, policy_of
from let_titan.data.reading import read_file
from let_titan.data.settings import Data
from let_titan.data.shards import SUFFIX, Header, ShardWriter, check_shard, check_text
from let_titan.data.teacher_text import TeacherText, check_spelling
from let_titan.disk import make_folder
from let_titan.errors import ConfigError, exit_code
from let_titan.heap import give_back_free_pages, give_back_large_blocks
from let_titan.tokenizer.encoder import DocumentEncoder, Encoder, load_encoder

CHARACTERS_AT_ONCE = 2**18
"""Text handed to the tokenizer's threads at once; bounds the memory that its results take."""


def tokenize(
    pattern: str,
    tokenizer: str,
    out: Path,
    data: Data,
    workers: int = 1,
    teacher_tokenizer: str | None = None,
) -> Counter[str]:
    """Writes the shards of all files of ``pattern`` that have none yet.

    Args:
        pattern: as training.dataset_path.
        tokenizer: as model.hf_assets_path.
        out: folder for the shards.
        data: add_bos, add_eos, bad_lines and max_document_mib count.
        workers: tiktoken's threads; a Hugging Face tokenizer's are RAYON_NUM_THREADS.
        teacher_tokenizer: of a teacher that reads by itself, whose ids are kept, too.

    Returns:
        documents and tokens written, and bad lines skipped by kind.

    Raises:
        ConfigError: a pattern without files or with shards among them, files of the same name,
            shards of another kind in ``out``, or a tokenizer that cannot be used.
    """
    files = data_files(pattern)
    check_text(files)
    encoder = load_encoder(tokenizer, workers)
    encode = encoder.documents(data.add_bos, data.add_eos)
    teacher = second_reading(encoder, tokenizer, teacher_tokenizer, data, workers)
    policy, totals = policy_of(data, validation=False), Counter[str]()
    make_folder(out)
    targets = shard_paths(files, out)
    tell_order(targets)
    with tqdm(unit=" documents", unit_scale=True, disable=None) as bar:
        for i, (path, file) in enumerate(targets.items()):
            bar.set_description(f"{file.name} ({i + 1} of {len(targets)})")
            header = header_of(file, encoder, data, teacher)
            if path.exists():
                check_shard(str(path), **header._asdict())
                continue
            with ShardWriter(path, header) as writer:
                for batch in text_batches(file, policy, totals):
                    totals["tokens"] += add_documents(writer, batch, encode, teacher)
                    totals["documents"] += len(batch)
                    bar.update(len(batch))
                    give_back_free_pages()
    return totals


def add_documents(
    writer: ShardWriter,
    batch: list[tuple[int, Document]],
    encode: DocumentEncoder,
    teacher: TeacherText | None,
) -> int:
    """Tokenises documents, each with its line, into a shard; returns the number of their ids."""
    texts = [document.text for _, document in batch]
    encoded = encode(texts)
    theirs = teacher.ids(texts, encoded) if teacher else [None] * len(texts)
    for (line, document), tokens, own in zip(batch, encoded, theirs, strict=True):
        writer.add(tokens, line, document, own)
    return sum(map(len, encoded))


def header_of(file: File, encoder: Encoder, data: Data, teacher: TeacherText | None) -> Header:
    """Returns what the shard of ``file`` says of itself."""
    theirs = (teacher.teacher.fingerprint, teacher.teacher.vocab_size) if teacher else ()
    return Header(
        file.name,
        file.size,
        encoder.fingerprint,
        encoder.vocab_size,
        data.add_bos,
        data.add_eos,
        data.max_document_mib,
        *theirs,
    )


def tell_order(targets: Iterable[Path]) -> None:
    """Warns where shards, which are read by name, would come in another order than their text.

    Args:
        targets: the shards' paths, in the order of the text.
    """
    in_order = list(targets)
    if in_order != sorted(in_order):
        print(
            "The text's folders are read one after the other and their shards by name, in another "
            "order: for the same sequences make the shards of each folder in one of its own.",
            file=sys.stderr,
        )


def second_reading(
    student: Encoder, path: str, teacher_path: str | None, data: Data, workers: int
) -> TeacherText | None:
    """Returns the reading of a teacher with the tokenizer in ``teacher_path``, if there is one.

    Args:
        student: the tokenizer in ``path``.
        path, teacher_path, data, workers: as ``tokenize``'s.

    Raises:
        ConfigError: one of the two does not keep every byte.
    """
    if teacher_path is None:
        return None
    # The trainer, too, reads a teacher's without truncation: it compares the two fingerprints.
    teacher = load_encoder(teacher_path, workers, uncut=True)
    check_spelling("student", path, student)
    check_spelling("teacher", teacher_path, teacher)
    return TeacherText(student, teacher, data.add_bos, data.add_eos, context=None, until=0)


def shard_paths(files: list[File], out: Path) -> dict[Path, File]:
    """Returns where each file's shard goes.

    Raises:
        ConfigError: two files have one name, and so one shard.
    """
    paths: dict[Path, File] = {}
    for file in files:
        path = out / (file.name + SUFFIX)
        if path in paths:
            raise ConfigError(
                f"{paths[path].path} and {file.path} have the same name: tokenize their folders "
                "one by one, each with an --out of its own."
            )
        paths[path] = file
    return paths


def text_batches(
    file: File, policy: Policy, skipped: Counter[str], size: int = CHARACTERS_AT_ONCE
) -> Iterator[list[tuple[int, Document]]]:
    """Yields (line, document) of a file in portions of ``size`` characters or more."""
    batch: list[tuple[int, Document]] = []
    characters = 0
    for line in read_file(file, 0, 0, policy.limit):
        document = policy.read(file, line, skipped)
        if document is None:
            continue
        batch.append((line.number, document))
        characters += len(document.text)
        if characters >= size:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def main(args: list[str] | None = None) -> int:
    defaults = Data()
    parser = argparse.ArgumentParser(prog="python -m let_titan.data.tokenize", description=__doc__)
    parser.add_argument("pattern", help="as training.dataset_path")
    parser.add_argument("--tokenizer", required=True, help="as model.hf_assets_path")
    parser.add_argument("--teacher-tokenizer", help='for teacher.tokenizer = "align"')
    parser.add_argument("--out", required=True, type=Path, help="folder for the shards")
    parser.add_argument("--bad-lines", choices=["skip", "stop"], default=defaults.bad_lines)
    parser.add_argument("--max-document-mib", type=int, default=defaults.max_document_mib)
    for name in ("bos", "eos"):
        parser.add_argument(f"--add-{name}", action=argparse.BooleanOptionalAction, default=True)
    cores = int(os.environ.get("RAYON_NUM_THREADS") or len(os.sched_getaffinity(0)))
    parser.add_argument("--workers", type=int, default=cores, help="threads of the tokenizer")
    given = vars(parser.parse_args(args))
    names = ("pattern", "tokenizer", "out", "workers", "teacher_tokenizer")
    pattern, tokenizer, out, workers, teacher = (given.pop(name) for name in names)
    os.environ["RAYON_NUM_THREADS"] = str(workers)
    give_back_large_blocks()

    def work() -> None:
        data = Data(**{**asdict(defaults), **given})
        totals = tokenize(pattern, tokenizer, out, data, workers, teacher)
        print(", ".join(f"{name}: {count:,}" for name, count in totals.items()) or "nothing to do")

    return exit_code("let_titan", work)


if __name__ == "__main__":
    sys.exit(main())
