"""Where a teacher comes from: a hub id, a local folder or a GGUF file; always to safetensors."""

import copy
import functools
from pathlib import Path

from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, PretrainedConfig

from let_titan.errors import ConfigError, NotFoundHere
from let_titan.teacher import hub
from let_titan.teacher.convert import cache_folder, cache_root, convert_bin, convert_gguf
from let_titan.teacher.fetch import Fetch, fetch_once
from let_titan.teacher.keys import quantized
from let_titan.tokenizer.match import CURE

CAUSAL_LM_ENDINGS = ("ForCausalLM", "LMHeadModel")


def read_config(
    checkpoint: str, trust_remote_code: bool = False, revision: str = ""
) -> PretrainedConfig:
    """Reads a teacher's configuration, without its weights.

    Args:
        checkpoint: hub id, local folder or ``.gguf`` file.
        trust_remote_code: allow the checkpoint's own code.
        revision: branch, tag or commit of a hub id; "": its main branch.

    Raises:
        ConfigError: nothing there, or nothing that transformers reads.
        NotFoundHere: a hub id that this machine cannot get.
    """
    path = Path(checkpoint).expanduser()
    local = path.exists() or looks_like_a_path(checkpoint)
    try:
        if path.suffix == ".gguf" and path.is_file():
            return copy.deepcopy(config_of_gguf(path, path.stat().st_mtime_ns))
        if path.is_dir() or not looks_like_a_path(checkpoint):
            return AutoConfig.from_pretrained(
                path if path.is_dir() else checkpoint,
                trust_remote_code=trust_remote_code,
                revision=revision or None,
                local_files_only=not path.is_dir() and not hub.answers(),
            )
    except (OSError, ValueError, KeyError, TypeError, StrictDataclassError) as error:
        if "trust_remote_code" in str(error):
            raise ConfigError(
                f"teacher.checkpoint = {checkpoint!r} brings Python code of its own: read it, then "
                "set teacher.trust_remote_code = true, or choose another teacher."
            ) from error
        reason = " ".join(str(error).strip().splitlines()[:2])
        kind = ConfigError if local else NotFoundHere
        raise kind(
            f"teacher.checkpoint = {hub.named(checkpoint, revision)} cannot be read ({reason}): "
            "give a local folder or a .gguf file, or a hub id that this machine can reach."
        ) from error
    raise ConfigError(
        f"teacher.checkpoint = {checkpoint!r} does not exist: give a hub id, a folder with "
        "config.json, or a .gguf file."
    )


@functools.cache
def config_of_gguf(path: Path, changed: int) -> PretrainedConfig:
    """Reads a GGUF file's configuration, which takes seconds, since its vocabulary is read, too.

    Args:
        path: the file.
        changed: its modification time in ns; another one reads the file anew.
    """
    return AutoConfig.from_pretrained(path.parent, gguf_file=path.name)


def looks_like_a_path(checkpoint: str) -> bool:
    """Whether ``checkpoint`` cannot be a hub id ("name" or "owner/name")."""
    return (
        checkpoint.startswith((".", "/", "~"))
        or checkpoint.count("/") > 1
        or (Path(checkpoint).suffix == ".gguf")
    )


def check_teacher(
    checkpoint: str,
    seq_len: int,
    layer_numbers: list[int],
    vocab_size: int,
    trust_remote_code: bool = False,
    revision: str = "",
) -> None:
    """Checks what can be known of a teacher before its weights are touched.

    Args:
        checkpoint: hub id, local folder or ``.gguf`` file.
        seq_len: tokens per sequence that it will read.
        layer_numbers: the blocks whose output is asked for, from 1.
        vocab_size: of the student, whose ids the teacher will read.
        trust_remote_code: allow the checkpoint's own code.
        revision: branch, tag or commit of a hub id; "": its main branch.

    Raises:
        ConfigError: not a causal LM, quantized, too short a context, too few ids, no such block.
    """
    config = read_config(checkpoint, trust_remote_code, revision)
    check_fits(config, checkpoint, seq_len, layer_numbers, vocab_size)


def check_fits(
    config: PretrainedConfig,
    checkpoint: str,
    seq_len: int,
    layer_numbers: list[int],
    vocab_size: int,
) -> None:
    """Checks a teacher's configuration against the student's; see ``check_teacher``."""
    architectures = config.architectures or []
    causal = all(name.endswith(CAUSAL_LM_ENDINGS) for name in architectures[:1])
    if not causal or config.is_encoder_decoder:
        kind = architectures[0] if architectures else config.model_type
        raise ConfigError(
            f"teacher.checkpoint = {checkpoint!r} is a {kind}, not a causal language "
            "model: choose one such as HuggingFaceTB/SmolLM-135M."
        )
    if stored := getattr(config, "quantization_config", None):
        how = dict(stored).get("quant_method", "by an unknown method")
        raise quantized(f"teacher.checkpoint = {checkpoint!r}", how)
    context = getattr(config, "max_position_embeddings", None)
    if context is not None and context < seq_len:
        raise ConfigError(
            f"training.seq_len = {seq_len} is longer than the teacher's context of {context}: "
            "shorten it or choose another teacher."
        )
    if config.vocab_size < vocab_size:
        raise ConfigError(
            f"The teacher knows {config.vocab_size} ids and the student's tokenizer has "
            f"{vocab_size}: {CURE}"
        )
    for number in layer_numbers:
        if not 1 <= number <= config.num_hidden_layers:
            raise ConfigError(
                f"Teacher layer {number} does not exist in {checkpoint!r}: choose 1 to "
                f'{config.num_hidden_layers}, "middle" or "last".'
            )


def prepare_teacher(checkpoint: str, trust_remote_code: bool = False, revision: str = "") -> Path:
    """Brings a teacher to a local folder with config.json and safetensors; called by all ranks.

    Rank 0 downloads or converts; then, on nodes that do not see its result, one rank each.

    Returns:
        The folder.
    """
    folder, fetch = plan_fetch(checkpoint, trust_remote_code, revision)
    if fetch is not None:
        fetch_once(folder, fetch)
    return folder


def plan_fetch(
    checkpoint: str, trust_remote_code: bool, revision: str = ""
) -> tuple[Path, Fetch | None]:
    """Returns the folder the teacher will be in, and what fills it if it is not there yet."""
    path = Path(checkpoint).expanduser()
    if path.suffix == ".gguf" and path.is_file():
        return cache_folder(path), lambda out: convert_gguf(path, out)
    if path.is_dir():
        if any(path.glob("*.safetensors")):
            return path, None
        return cache_folder(path), lambda out: convert_bin(path, out, trust_remote_code)
    name = f"{checkpoint}@{revision}" if revision else checkpoint
    folder = cache_root() / name.replace("/", "--")
    return folder, lambda out: hub.download(checkpoint, out, trust_remote_code, revision)
