"""[teacher] tokenizer = "align": what it needs of the data and of both tokenizers."""

from let_titan.checks.mistakes import Mistakes
from let_titan.config import LetJobConfig
from let_titan.data.files import PILE, data_files
from let_titan.data.shards import SUFFIX
from let_titan.data.teacher_text import changed_text
from let_titan.encoder import Encoder
from let_titan.errors import ConfigError
from let_titan.teacher import read_encoder
from let_titan.teacher.sources import read_config
from let_titan.tokenizer import encoder_of, load_tokenizer

KEY = 'teacher.tokenizer = "align"'


def align_mistakes(config: LetJobConfig) -> Mistakes:
    """What the key does not go with."""
    if config.teacher.tokenizer == "same":
        return
    if config.distill.method != "none":
        yield ConfigError(
            f"{KEY} cannot be used with distill.method = {config.distill.method!r}, which compares "
            'logits of one vocabulary: use the teacher\'s tokenizer and "same".'
        )
    if config.let.enable and config.training.dataset != PILE:
        yield ConfigError(
            f"{KEY} needs training.dataset = {PILE!r}, whose loader reads for the teacher, too, "
            f"not {config.training.dataset!r}: change it, or use the teacher's tokenizer."
        )


def shard_mistakes(config: LetJobConfig) -> Mistakes:
    """A token shard holds the student's ids alone."""
    if config.teacher.tokenizer == "same" or config.training.dataset != PILE:
        return
    shards = [f for f in data_files(config.training.dataset_path) if f.path.endswith(SUFFIX)]
    if shards:
        yield ConfigError(
            f"{KEY} needs text, and {shards[0].path} is a token shard: give the files that it was "
            "made of."
        )


def teacher_tokenizer_mistakes(config: LetJobConfig) -> Mistakes:
    """Both tokenizers keep every byte of ordinary text, and the teacher knows its own ids."""
    teacher = config.teacher
    theirs = read_encoder(teacher.checkpoint, teacher.trust_remote_code)
    if theirs is None:
        yield ConfigError(
            f"{KEY} needs the teacher's tokenizer, and teacher.checkpoint = {teacher.checkpoint!r} "
            "brings none: put its tokenizer.json there."
        )
        return
    ours = encoder_of(load_tokenizer(config.model.hf_assets_path))
    yield from spelling_mistakes("student", config.model.hf_assets_path, ours)
    yield from spelling_mistakes("teacher", teacher.checkpoint, theirs)
    rows = read_config(teacher.checkpoint, teacher.trust_remote_code).vocab_size
    if theirs.vocab_size > rows:
        yield ConfigError(
            f"The teacher knows {rows} ids and the tokenizer in {teacher.checkpoint!r} has "
            f"{theirs.vocab_size}: its tokenizer.json and config.json do not belong together."
        )


def spelling_mistakes(whose: str, path: str, encoder: Encoder) -> Mistakes:
    text = changed_text(encoder)
    if text is not None:
        yield ConfigError(
            f"{KEY} needs places in bytes, and the {whose}'s tokenizer in {path!r} changes text "
            f"such as {text!r}: use one that keeps every byte, such as byte-level BPE."
        )
