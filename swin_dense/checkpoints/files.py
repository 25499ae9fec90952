"""Open checkpoint files without running anything that they contain."""

from pathlib import Path
from urllib.parse import urlparse

import torch
from torch import Tensor

from swin_dense.errors import UserError


def fetch(location: str) -> Path:
    """The local path of a file path or http(s) address; an address is downloaded once into torch's cache.

    Raises:
        UserError: there is no such file, or it cannot be downloaded.
    """
    if urlparse(location).scheme not in ('http', 'https'):
        path = Path(location).expanduser()
        if not path.is_file():
            what = 'is a folder, not a file' if path.is_dir() else 'does not exist'
            raise UserError(f'checkpoint {location} {what} (looked for {path.absolute()})')
        return path
    path = Path(torch.hub.get_dir()) / 'checkpoints' / Path(urlparse(location).path).name
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(location, str(path))
        except OSError as error:
            raise UserError(
                f'checkpoint {location} cannot be downloaded ({error}): put the file at {path}, or name a '
                f'local one with --cfg-options model.backbone.init_cfg.checkpoint=FILE'
            ) from error
    return path


def read(path: Path) -> dict:
    """What a ``.pth`` or ``.safetensors`` file holds, on the CPU.

    Raises:
        UserError: the file is damaged, or holds more than tensors and plain data.
    """
    try:
        if path.suffix == '.safetensors':
            from safetensors.torch import load_file

            return load_file(path)
        content = torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:  # a damaged file raises whatever its bytes happen to mean
        reason = str(error).split('\n')[0] or type(error).__name__
        raise UserError(f'checkpoint {path} cannot be read safely: {reason[:200]}') from error
    if not isinstance(content, dict):
        raise UserError(f'checkpoint {path} holds a {type(content).__name__}, not a dict of tensors')
    return content


def state_dict(content: dict) -> dict[str, Tensor]:
    """The tensors by name, unwrapped from ``state_dict`` or ``model`` and the prefix ``module.``."""
    for wrapper in ('state_dict', 'model'):
        if isinstance(content.get(wrapper), dict):
            content = content[wrapper]
            break
    tensors = {key: value for key, value in content.items() if isinstance(value, Tensor)}
    return {str(key).removeprefix('module.'): value for key, value in tensors.items()}
