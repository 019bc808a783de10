"""From a text to ids and back: Hugging Face's tokenizers and tiktoken's, with and without torch."""
