"""Training of a compiler for a base that stays as it is, through transformers."""
