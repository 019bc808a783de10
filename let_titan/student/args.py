"""The student's arguments: torchtitan's, with the vocabulary of the run's tokenizer."""

from dataclasses import asdict, dataclass, field
from typing import Any, Self

from torchtitan.config import JobConfig
from torchtitan.models.llama3 import TransformerModelArgs
from torchtitan.models.llama3.model.args import RoPEScalingArgs

from let_titan.config import LetJobConfig
from let_titan.tokenizer.build import vocab_size

ARCHITECTURE = (
    "dim",
    "n_layers",
    "n_heads",
    "n_kv_heads",
    "multiple_of",
    "ffn_dim_multiplier",
    "norm_eps",
    "rope_scaling_args",
)
"""What a flavor says of the function; the config and the tokenizer say the rest."""


@dataclass
class LetModelArgs(TransformerModelArgs):
    # torchtitan's Llama 3 always scales RoPE (factor 8); LLaMA as in the paper does not.
    rope_scaling_args: RoPEScalingArgs = field(
        default_factory=lambda: RoPEScalingArgs(scaling_factor=1.0)
    )
    depth_init: bool = True
    init_scheme: str = "torchtitan"
    vocabulary: int | None = None
    """Ids of the tokenizer where ``vocab_size`` is padded; None where it is not"""

    def architecture(self) -> dict[str, Any]:
        """Returns what is a flavor's, as JSON has it."""
        values = asdict(self)
        return {name: values[name] for name in ARCHITECTURE}

    @classmethod
    def from_architecture(cls, values: dict[str, Any]) -> Self:
        """Returns the arguments of a flavor, from what ``architecture`` gave."""
        scaling = RoPEScalingArgs(**values["rope_scaling_args"])
        return cls(**{**values, "rope_scaling_args": scaling})

    def update_from_config(self, job_config: JobConfig, **kwargs: Any) -> None:
        """Takes seq_len, [model]'s keys and the tokenizer's vocabulary from the config."""
        assert isinstance(job_config, LetJobConfig)
        self.update_for_vocabulary(job_config, vocab_size(job_config.model.hf_assets_path))

    def update_for_vocabulary(self, job_config: LetJobConfig, vocabulary: int) -> None:
        """As ``update_from_config``, for a tokenizer of which only the size is known."""
        super().update_from_config(job_config)
        self.pad_vocabulary(vocabulary, job_config.model.pad_vocab_to_multiple_of)
        self.init_scheme = job_config.model.init_scheme
        self.rope_theta = job_config.model.rope_theta
        if job_config.data.document_attention:
            self.attn_type, self.attn_mask_type = "flex", "block_causal"

    def pad_vocabulary(self, vocabulary: int, multiple: int) -> None:
        """Sets ``vocab_size`` to ``vocabulary``, rounded up to a multiple of ``multiple``."""
        self.vocab_size = -(-vocabulary // multiple) * multiple
        self.vocabulary = vocabulary if self.vocab_size > vocabulary else None
