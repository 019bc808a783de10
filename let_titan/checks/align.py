"""[teacher] tokenizer = "align": what it needs of the data and of both tokenizers."""

from let_titan.checks.mistakes import Mistakes, raised_by
from let_titan.config import LetJobConfig, distills
from let_titan.data.files import PILE, data_files
from let_titan.data.shards import SUFFIX, read_header
from let_titan.data.teacher_text import check_spelling
from let_titan.errors import ConfigError
from let_titan.teacher import read_encoder
from let_titan.teacher.sources import read_config
from let_titan.tokenizer.build import encoder_of, load_tokenizer
from let_titan.tokenizer.encoder import Encoder

KEY = 'teacher.tokenizer = "align"'


def align_mistakes(config: LetJobConfig) -> Mistakes:
    """Keys that exclude it."""
    if config.teacher.tokenizer == "same":
        return
    if distills(config):
        yield ConfigError(
            f"{KEY} cannot be used with distill.method = {config.distill.method!r}, which compares "
            'logits of one vocabulary: use the teacher\'s tokenizer and "same".'
        )
    if config.let.enable and config.training.dataset != PILE:
        yield ConfigError(
            f"{KEY} needs training.dataset = {PILE!r}, whose loader reads for the teacher, too, "
            f"not {config.training.dataset!r}: change it, or use the teacher's tokenizer."
        )


def teacher_tokenizer_mistakes(config: LetJobConfig) -> Mistakes:
    """Both tokenizers keep every byte of ordinary text, and the teacher knows its own ids."""
    teacher = config.teacher
    theirs = read_encoder(*teacher.source)
    if theirs is None:
        yield ConfigError(
            f"{KEY} needs the teacher's tokenizer, and teacher.checkpoint = {teacher.checkpoint!r} "
            "brings none: put its tokenizer.json there."
        )
        return
    ours = encoder_of(load_tokenizer(config.model.hf_assets_path))
    yield from raised_by(check_spelling, "student", config.model.hf_assets_path, ours)
    yield from raised_by(check_spelling, "teacher", teacher.checkpoint, theirs)
    yield from shard_mistakes(config, theirs)
    rows = read_config(*teacher.source).vocab_size
    if theirs.vocab_size > rows:
        yield ConfigError(
            f"The teacher knows {rows} ids and the tokenizer in {teacher.checkpoint!r} has "
            f"{theirs.vocab_size}: its tokenizer.json and config.json do not belong together."
        )


def shard_mistakes(config: LetJobConfig, theirs: Encoder) -> Mistakes:
    """Token shards must have the ids of the teacher's tokenizer, too."""
    if config.training.dataset != PILE:
        return
    try:
        shards = [f for f in data_files(config.training.dataset_path) if f.path.endswith(SUFFIX)]
        found = [(file.path, read_header(file.path).teacher_tokenizer) for file in shards]
    except ConfigError:  # told by the checks of the data
        return
    for path, tokenizer in found:
        if tokenizer != theirs.fingerprint:
            has = "ids of another tokenizer" if tokenizer else "none of its ids"
            yield ConfigError(
                f"{KEY} needs the teacher's ids, and {path} has {has}: make the shards with "
                "--teacher-tokenizer, or give the files of text."
            )
            return
