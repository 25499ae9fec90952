"""Configs, runner and hooks: what the tools call."""

from swin_dense import hosts

hosts.prepare()  # the hosts cannot be imported before this
