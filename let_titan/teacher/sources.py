"""Where a teacher comes from: a hub id, a local folder or a GGUF file; always to safetensors.

GGUF files and ``.bin`` weights are converted once into a cache (``$LET_TITAN_CACHE``, else
``~/.cache/let_titan``), so that every rank can read just its part later.
"""

import copy
import functools
import hashlib
import os
import pickle
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig

from let_titan.errors import ConfigError, NotFoundHere
from let_titan.teacher.fetch import Fetch, fetch_once
from let_titan.teacher.gguf_file import tokenizer_of_gguf
from let_titan.teacher.weights import check_weights
from let_titan.tokenizer_match import CURE

CAUSAL_LM_ENDINGS = ("ForCausalLM", "LMHeadModel")
HUB_TIMEOUT_S = 4.0


def cache_root() -> Path:
    """Returns the folder of converted teachers."""
    return Path(os.environ.get("LET_TITAN_CACHE", "~/.cache/let_titan")).expanduser()


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
                local_files_only=not path.is_dir() and not hub_answers(),
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
            f"teacher.checkpoint = {named(checkpoint, revision)} cannot be read ({reason}): give a "
            "local folder or a .gguf file, or a hub id that this machine can reach."
        ) from error
    raise ConfigError(
        f"teacher.checkpoint = {checkpoint!r} does not exist: give a hub id, a folder with "
        "config.json, or a .gguf file."
    )


@functools.cache
def config_of_gguf(path: Path, changed: int) -> PretrainedConfig:
    """Reads a GGUF file's configuration, once for each change: seconds, for its vocabulary's sake.

    Args:
        path: the file.
        changed: when, in ns.
    """
    return AutoConfig.from_pretrained(path.parent, gguf_file=path.name)


@functools.cache
def hub_answers() -> bool:
    """Whether the hub can be reached, asked once; if not, only what is cached is looked for.

    Its own client retries for 23 seconds before it gives up, for minutes where nothing answers
    (measured with huggingface_hub 2.4).
    """
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=HUB_TIMEOUT_S)
    except Exception:  # of requests, httpx or httpx2, by huggingface_hub's version
        return False
    return True


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
        ConfigError: not a causal LM, too short a context, too few ids, no such block.
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
    return folder, lambda out: download(checkpoint, out, trust_remote_code, revision)


def commit_of(folder: Path) -> str | None:
    """Returns the hub's commit of a teacher's folder; None where it is no download as it came."""
    snapshot = folder.resolve()  # models--OWNER--NAME/snapshots/COMMIT
    return snapshot.name if snapshot.parent.name == "snapshots" else None


def named(checkpoint: str, revision: str) -> str:
    """Returns a checkpoint as a sentence names it, with its revision, if it has one."""
    return f"{checkpoint!r} at teacher.revision = {revision!r}" if revision else repr(checkpoint)


def cache_folder(path: Path) -> Path:
    """Returns the cache's folder for a local file or folder: another one after each change."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    stats = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    digest = hashlib.sha256(repr(stats).encode()).hexdigest()[:12]
    return cache_root() / f"{path.stem}-{digest}"


def download(checkpoint: str, out: Path, trust_remote_code: bool, revision: str) -> None:
    """Takes a hub id's safetensors, or its ``.bin`` weights where it has none, to ``out``."""
    from huggingface_hub import snapshot_download

    text = ["*.json", "*.model", "*.txt", *(["*.py"] if trust_remote_code else [])]
    fetch = functools.partial(
        snapshot_download,
        checkpoint,
        revision=revision or None,
        local_files_only=not hub_answers(),
    )
    try:
        folder = Path(fetch(allow_patterns=[*text, "*.safetensors"]))
        if not any(folder.glob("*.safetensors")):
            folder = Path(fetch(allow_patterns=[*text, "*.bin"]))
            return convert_bin(folder, out, trust_remote_code)
    except OSError as error:
        raise ConfigError(
            f"teacher.checkpoint = {named(checkpoint, revision)} cannot be downloaded "
            f"({str(error).splitlines()[0]}): check the name and the network, or give a local "
            "folder."
        ) from error
    out.parent.mkdir(parents=True, exist_ok=True)
    out.unlink(missing_ok=True)  # a link whose target has gone
    out.symlink_to(folder, target_is_directory=True)


def convert_gguf(path: Path, out: Path) -> None:
    """Writes a GGUF file as a Hugging Face folder (fp32 safetensors, config, tokenizer).

    transformers dequantises on loading and then refuses to save until its quantiser is gone.
    """

    def convert(folder: Path) -> None:
        model: Any = AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, dtype=torch.float32
        )
        model.hf_quantizer, model.is_quantized = None, False
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.save_pretrained(folder)
        tokenizer_of_gguf(path).save_pretrained(folder)

    write_whole(out, convert)


def convert_bin(source: Path, out: Path, trust_remote_code: bool = False) -> None:
    """Writes a folder of ``.bin`` weights, read as weights only, as safetensors."""
    check_weights(str(source))

    def convert(folder: Path) -> None:
        try:
            model = AutoModelForCausalLM.from_pretrained(
                source,
                use_safetensors=False,
                weights_only=True,
                dtype="auto",
                trust_remote_code=trust_remote_code,
            )
        except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
            raise ConfigError(
                f"The teacher's *.bin in {str(source)!r} cannot be read as weights only "
                f"({str(error).strip().splitlines()[0]}): give a teacher with *.safetensors."
            ) from error
        model.save_pretrained(folder)
        for file in source.glob("*token*"):
            shutil.copy(file, folder)

    write_whole(out, convert)


def write_whole(out: Path, write: Callable[[Path], None]) -> None:
    """Lets ``write`` fill a folder that appears as ``out`` only when it is complete.

    A model is built on the way, so the random state is put back as it was.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch,
        torch.random.fork_rng(devices=[]),
    ):
        folder = Path(scratch) / out.name
        folder.mkdir()
        write(folder)
        if not out.exists():
            os.replace(folder, out)
