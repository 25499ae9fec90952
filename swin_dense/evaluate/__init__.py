"""Saved predictions against the ground truth, with no model; and the metrics of a run that write them."""
