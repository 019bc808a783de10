"""What a run leaves in its folder: metrics.jsonl, summary.json, and the same for wandb."""
