"""From checkpoints to the paper's table: nine one-shot tasks; perplexity per set."""
