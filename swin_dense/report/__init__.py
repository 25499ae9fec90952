"""The report of a run: one HTML page, and the size of models."""
