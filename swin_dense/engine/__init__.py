"""Configs, runner and hooks: what the tools call."""
