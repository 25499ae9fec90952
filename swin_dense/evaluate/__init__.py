"""Saved predictions against the ground truth, with no model; and the metrics of a run that write them."""

from swin_dense import hosts

hosts.prepare()  # the hosts cannot be imported before this
