"""Plain causal attention for the teacher, of which transformers need not be told by a mask."""

from transformers import AttentionInterface, PretrainedConfig
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

CAUSAL = "let_titan_causal"
"""transformers' own SDPA under a name for which it makes no mask: ``is_causal`` says it all."""

PLAINLY_CAUSAL = ("llama", "opt", "gpt_neox", "gpt2")
"""Architectures with no sliding window and no bias in the mask, each tested to the bit."""

AttentionInterface.register(CAUSAL, ALL_ATTENTION_FUNCTIONS["sdpa"])


def attention_of(config: PretrainedConfig) -> str:
    """Returns the attention to build a teacher with.

    Under "sdpa" transformers 5 looks at the positions in each forward, whether several sequences
    were packed into one, and reads the answer back from the device: the host waits for all that is
    queued. A teacher's rows are never packed.
    """
    return CAUSAL if config.model_type in PLAINLY_CAUSAL else "sdpa"
