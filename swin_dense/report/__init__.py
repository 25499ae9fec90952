"""The report of a run: one HTML page, and the size of models."""

from swin_dense import hosts

hosts.prepare()  # the hosts cannot be imported before this
