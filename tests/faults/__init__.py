"""Runs that are killed or stopped, and what is left of them."""
