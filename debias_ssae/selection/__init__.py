"""Which latents carry the attribute: from labels, or from a concept without labels; which of them, how many."""
