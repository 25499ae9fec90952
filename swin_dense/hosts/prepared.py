"""Importing this module calls ``prepare()``: for mmdet's and mmseg's own tools, as a line of a config.

custom_imports = dict(imports='swin_dense.hosts.prepared')
"""

from swin_dense.hosts.packages import prepare

prepare()
