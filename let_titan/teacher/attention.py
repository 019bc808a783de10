"""Plain causal attention for the teacher, of which transformers need not be told by a mask."""

from typing import Any

CAUSAL = "let_titan_causal"
"""transformers' own SDPA under a name for which it makes no mask: ``is_causal`` says it all."""

PLAINLY_CAUSAL = ("llama", "opt", "gpt_neox", "gpt2")
"""Architectures with no sliding window and no bias in the mask, each tested to the bit."""


def attention_of(config: Any) -> str:
    """Returns the attention to build a teacher with.

    Under "sdpa" transformers 5 looks at the positions in each forward, whether several sequences
    were packed into one, and reads the answer back from the device: the host waits for all that is
    queued. A teacher's rows are never packed.
    """
    if config.model_type not in PLAINLY_CAUSAL:
        return "sdpa"
    # Imported here: it brings torchao, whose notices must find the log set up.
    from transformers import AttentionInterface
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    AttentionInterface.register(CAUSAL, ALL_ATTENTION_FUNCTIONS["sdpa"])
    return CAUSAL
