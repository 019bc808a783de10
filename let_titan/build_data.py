"""Builds the loaders of a config: [data], and the data sets of [training] and [validation]."""

from typing import Any

from datasets import Dataset
from torchtitan.components.dataloader import BaseDataLoader
from torchtitan.config.job_config import Validation
from torchtitan.hf_datasets import DatasetConfig
from torchtitan.hf_datasets.text_datasets import (
    DATASETS,
    build_text_dataloader,
    build_text_validation_dataloader,
)

from let_titan.config import LetJobConfig, Training
from let_titan.data.corpus import Corpus
from let_titan.data.files import PILE, File, corpus_digest, data_files
from let_titan.data.loader import PileLoader
from let_titan.data.policy import policy_of
from let_titan.data.reading import read_file
from let_titan.data.settings import Data
from let_titan.data.shards import SUFFIX, check_shard, read_header
from let_titan.data.teacher_text import TeacherText
from let_titan.data.weights import warn_of_unknown_sets
from let_titan.errors import ConfigError
from let_titan.helpers import serve_rank_in_workers
from let_titan.plan import aligns
from let_titan.tokenizer.build import RunTokenizer, document_encoder, fingerprint


def register_pile() -> None:
    """Adds ``pile`` to torchtitan's table of data sets; safe to call again.

    torchtitan's Validator builds a loader of its own before ours takes its place: an empty one.
    """
    DATASETS[PILE] = DatasetConfig(
        path="",
        loader=lambda _: Dataset.from_dict({"text": []}),
        sample_processor=lambda sample: sample["text"],
    )


def build_dataloader(
    dp_world_size: int,
    dp_rank: int,
    tokenizer: RunTokenizer,
    job_config: LetJobConfig,
    infinite: bool = True,
    teacher: TeacherText | None = None,
) -> BaseDataLoader:
    """Builds the training data loader: this rank's share of ``training.dataset``.

    With ``teacher`` it gives what a teacher reads with a tokenizer of its own, too.
    """
    training = job_config.training
    if training.dataset != PILE:
        loader = build_text_dataloader(dp_world_size, dp_rank, tokenizer, job_config, infinite)
        serve_rank_in_workers(loader)
        return loader
    loader = pile_loader(
        job_config.data,
        training,
        tokenizer,
        validation=False,
        teacher=teacher,
        numbered=bool(job_config.teacher.cache) and aligns(job_config),
        lanes=job_config.data.lanes,
        rank=dp_rank,
        ranks=dp_world_size,
        infinite=infinite,
    )
    if dp_rank == 0:
        look_for_weighed_sets(loader.corpus)
    return loader


def look_for_weighed_sets(corpus: Corpus) -> None:
    """Warns where the first file knows no set by a name that data.weights has."""
    policy, file = corpus.policy, corpus.files[0]
    if policy.weights:
        lines = corpus.read(file, 0, 0, policy.limit)
        warn_of_unknown_sets(policy.weights, file.path, lines, policy.limit)


def build_validation_dataloader(
    tokenizer: RunTokenizer, job_config: LetJobConfig
) -> BaseDataLoader:
    """Builds validation's loader: of all sequences and one lane, whatever the ranks."""
    validation = job_config.validation
    if validation.dataset != PILE:
        loader = build_text_validation_dataloader(1, 0, tokenizer, job_config, True)
        serve_rank_in_workers(loader)
        return loader
    return pile_loader(
        job_config.data,
        validation,
        tokenizer,
        validation=True,
        lanes=1,
        rank=0,
        ranks=1,
        infinite=True,
    )


def pile_loader(
    data: Data,
    section: Training | Validation,
    tokenizer: RunTokenizer,
    *,
    validation: bool,
    teacher: TeacherText | None = None,
    **layout: Any,
) -> PileLoader:
    """Builds a loader of ``section`` ([training] or [validation])."""
    sha256 = fingerprint(tokenizer)
    files = [as_cut(file, sha256, data, teacher) for file in data_files(section.dataset_path)]
    corpus = Corpus(
        files,
        read_file,
        document_encoder(tokenizer, data.add_bos, data.add_eos),
        policy_of(data, validation),
        data.shuffle_seed,
        0 if validation else data.shuffle_buffer,
        teacher,
    )
    identity = {
        "corpus": corpus_digest(files),
        "tokenizer": sha256,
        **{key: getattr(data, key) for key in IDENTITY},
    }
    return PileLoader(
        corpus,
        identity,
        batch=section.local_batch_size,
        seq_len=section.seq_len,
        workers=0 if validation else section.dataloader.num_workers,
        prefetch=section.dataloader.prefetch_factor,
        pin_memory=section.dataloader.pin_memory,
        positions=data.document_attention,
        **layout,
    )


IDENTITY = (
    "add_bos",
    "add_eos",
    "shuffle_buffer",
    "shuffle_seed",
    "weights",
    "validation_fraction",
    "max_document_mib",
)
"""Keys of [data] that decide which ids stand where: a resumed run must have the same."""


def as_cut(file: File, tokenizer: str, data: Data, teacher: TeacherText | None = None) -> File:
    """Returns the file with the size by which lanes are cut: a shard's is that of its text.

    Raises:
        ConfigError: a shard that was made with other tokenizers or other keys of [data].
    """
    if not file.path.endswith(SUFFIX):
        return file
    check_shard(
        file.path,
        tokenizer=tokenizer,
        add_bos=data.add_bos,
        add_eos=data.add_eos,
        max_document_mib=data.max_document_mib,
        **({"teacher_tokenizer": teacher.teacher.fingerprint} if teacher else {}),
    )
    return File(file.path, read_header(file.path).source_size)


def check_dataset(name: str, pattern: str | None, section: str, data: Data) -> None:
    """Checks that a data set of the config can be opened.

    Raises:
        ConfigError: an unknown data set, a pattern that matches nothing, a wrong key in [data].
    """
    if name not in {*DATASETS, PILE}:
        raise ConfigError(
            f"{section}.dataset = {name!r} is unknown: choose one of "
            f"{', '.join(sorted({*DATASETS, PILE}))}."
        )
    if name == PILE:
        policy_of(data, validation=False)
        data_files(pattern, f"{section}.dataset_path")
