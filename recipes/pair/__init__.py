"""A student and a teacher with two tokenizers: what two recipes share."""
