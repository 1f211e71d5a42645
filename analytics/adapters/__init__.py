"""The boundary out: one file for what is kept where."""
