"""Weights from DCP to safetensors, one shard in memory at a time."""

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from huggingface_hub import split_torch_state_dict_into_shards
from huggingface_hub.constants import SAFETENSORS_INDEX_FILE
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torchtitan.models.llama3.model.state_dict_adapter import Llama3StateDictAdapter

from let_titan.errors import ConfigError, RunError
from let_titan.export.shape import parameter_shapes
from let_titan.student import LetModelArgs

EMBEDDING, HEAD = "tok_embeddings.weight", "output.weight"


class KnownReader(FileSystemReader):
    """DCP's reader, given the ``.metadata``, which it would unpickle again for each tensor."""

    def __init__(self, folder: Path, metadata: Metadata) -> None:
        super().__init__(folder)
        self.metadata = metadata

    def read_metadata(self) -> Metadata:
        """Returns what ``let_titan.checkpoint.checksums.read_metadata`` read."""
        return self.metadata


def embedding_rows(metadata: Metadata, folder: Path) -> int:
    """Returns the number of rows that the checkpoint's embedding has.

    Raises:
        ConfigError: it has no embedding.
    """
    entry = metadata.state_dict_metadata.get(EMBEDDING)
    if not isinstance(entry, TensorStorageMetadata):
        raise ConfigError(f"The checkpoint {str(folder)!r} has no {EMBEDDING}: export another one.")
    return entry.size[0]


def check_parameters(metadata: Metadata, args: LetModelArgs, folder: Path) -> None:
    """Checks that all of the student's parameters are in the checkpoint, in their shapes.

    Raises:
        ConfigError: names the first that is not.
    """
    for name, tensor in parameter_shapes(args).items():
        found = getattr(metadata.state_dict_metadata.get(name), "size", None)
        if found != tensor.shape:
            here = "is missing" if found is None else f"is {list(found)}"
            raise ConfigError(
                f"The checkpoint {str(folder)!r} is not of this run's model: {name} {here} and "
                f"must be {list(tensor.shape)}. Name the run that saved it with --run."
            )


@contextmanager
def on_one_process() -> Iterator[None]:
    """While active, DCP does not warn of each call with ``no_dist``, which is what was meant."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
        yield


class WeightStream:
    """Reads the student's parameters out of a checkpoint under their Hugging Face names.

    Nothing else in the checkpoint (moments, positions) is touched, and the vocabulary's padding is
    left behind.
    """

    def __init__(
        self, folder: Path, metadata: Metadata, args: LetModelArgs, dtype: torch.dtype
    ) -> None:
        self.reader = KnownReader(folder, metadata)
        self.adapter = Llama3StateDictAdapter(args, hf_assets_path=None)
        self.vocabulary = args.vocabulary
        self.stored = parameter_shapes(args)  # by the checkpoint's name, on meta
        self.native: dict[str, str] = {}
        self.shapes: dict[str, torch.Tensor] = {}  # by Hugging Face's name, on meta
        for name, tensor in self.stored.items():
            whole = self._without_padding(name, tensor.to(dtype))
            for hf_name, shape in self.adapter.to_hf({name: whole}).items():
                self.native[hf_name], self.shapes[hf_name] = name, shape

    def _without_padding(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        return tensor[: self.vocabulary] if name in (EMBEDDING, HEAD) else tensor

    def read(self, hf_name: str) -> torch.Tensor:
        """Returns one parameter, whole, in the stream's dtype, however it was sharded."""
        name = self.native[hf_name]
        state = {name: torch.empty(self.stored[name].shape, dtype=self.shapes[hf_name].dtype)}
        with on_one_process():
            dcp.load(state, storage_reader=self.reader, no_dist=True)
        return self.adapter.to_hf({name: self._without_padding(name, state[name])})[hf_name]


def write_shards(stream: WeightStream, out: Path, shard_bytes: int) -> Iterator[str]:
    """Writes model*.safetensors, and its index where there are several; yields their names.

    Raises:
        RunError: a file cannot be written.
    """
    split = split_torch_state_dict_into_shards(stream.shapes, max_shard_size=shard_bytes)
    for file, names in split.filename_to_tensors.items():
        try:
            save_file(
                {name: stream.read(name) for name in names}, out / file, metadata={"format": "pt"}
            )
        except SafetensorError as error:
            raise RunError(f"{out / file} cannot be written ({error}): make room.") from error
        yield file
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        (out / SAFETENSORS_INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n")
