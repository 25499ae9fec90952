"""The tools as modules; they are scripts, in no package."""

import importlib.util
from functools import cache
from pathlib import Path
from types import ModuleType

TOOLS = Path(__file__).parents[2] / 'tools'


@cache
def load_tool(name: str) -> ModuleType:
    """tools/NAME.py, imported but not run."""
    spec = importlib.util.spec_from_file_location(f'tool_{name}', TOOLS / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
