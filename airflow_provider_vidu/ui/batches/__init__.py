"""The pages of batches: the sheet of one, and a page per row."""
