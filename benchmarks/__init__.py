"""How fast and how lean our Swin is beside everyone else's: ``python benchmarks/run.py``.

Read in this order: ``settings.py`` (what is measured), ``backbones.py`` and ``whole.py`` (the models, with
equal weights), ``measure.py`` (time, memory, load), ``pair.py`` (one process, one pair), ``report.py`` and
``plots.py`` (what is written), ``run.py`` (the command).
"""
