"""Training of a writer for a base that stays as it is, through transformers."""
