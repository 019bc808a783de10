"""What becomes of LET's students later: fine-tuned on domains that they never read."""
