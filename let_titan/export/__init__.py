"""From a run's DCP checkpoint to a Hugging Face folder (``folder``), and back (``from_hf``)."""
