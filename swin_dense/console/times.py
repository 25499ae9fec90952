"""Durations as people read them."""


def clock(seconds: float) -> str:
    """``0:42``, ``12:05`` or ``3:00:00``."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f'{hours}:{minutes:02}:{rest:02}' if hours else f'{minutes}:{rest:02}'
