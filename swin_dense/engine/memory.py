"""Advice when memory is used up: one line instead of a traceback."""

import errno
import re

import torch
from mmengine.config import Config

from swin_dense.engine.ranks import chain
from swin_dense.errors import FailedRunError

# of torch's allocators, of numpy, of OpenCV
HOST = re.compile(
    r"DefaultCPUAllocator: can't allocate memory|not enough memory|Cannot allocate memory|"
    r'std::bad_alloc|Unable to allocate .* for an array|Insufficient memory|Failed to allocate \d+ bytes',
    re.IGNORECASE,
)
# of torch's allocators, and of cuBLAS, cuDNN, cuFFT and cuSOLVER, which ask the driver themselves
DEVICE = re.compile(
    r'(?:CUDA|HIP|MPS backend) out of memory|CUDA error: out of memory|'
    r'\b(?:CU|HIP|ROC)[A-Z]+_\w*ALLOC\w*_FAILED\b',
    re.IGNORECASE,
)
SHARED = re.compile(
    r'out of shared memory|unable to (?:allocate|mmap|write|open|resize) .*(?:shared memory|/torch_)|'
    r'/torch_\S+.*(?:No space left|Resource temporarily unavailable)|Bus error',
    re.IGNORECASE | re.DOTALL,
)
INTACT = 'the last checkpoint is intact'


def memory_failure(error: BaseException, config: Config) -> FailedRunError | None:
    """The one line of memory that is used up, with what to lower; None if the error is another one.

    Args:
        error: what was raised, in this process or in a loader's worker.
        config: of the run.
    """
    links = chain(error)
    text = '\n'.join(str(link) for link in links)
    if any(isinstance(link, torch.OutOfMemoryError) for link in links) or DEVICE.search(text):
        device = f' of {torch.cuda.get_device_name()}' if torch.cuda.is_available() else ''
        return FailedRunError(f'the memory{device} is used up: {_lower(config, True)}; {INTACT}')
    if SHARED.search(text):
        return FailedRunError(
            f'the shared memory that loader workers hand their batches over in (/dev/shm) is used up: '
            f'{_workers(config)}, or enlarge it (docker run --shm-size 8g); {INTACT}'
        )
    no_memory = any(isinstance(link, OSError) and link.errno == errno.ENOMEM for link in links)
    if no_memory or any(isinstance(link, MemoryError) for link in links) or HOST.search(text):
        return FailedRunError(f'the memory of this machine is used up: {_lower(config, False)}; {INTACT}')
    return None


def _lower(config: Config, device: bool) -> str:
    """The settings to lower, the most useful first, each as an option of the command line."""
    advice = []
    batch = (config.get('train_dataloader') or {}).get('batch_size')
    if isinstance(batch, int) and batch > 1:
        advice.append(f'lower train_dataloader.batch_size={batch}')
    model = config.get('model') or {}
    backbone = model.get('backbone') or {}
    is_swin = str(backbone.get('type')).endswith(('SwinTransformer', 'SwinTransformerV2'))
    if is_swin and not backbone.get('with_cp'):
        advice.append('set model.backbone.with_cp=True')
    if 'BFloat16' not in str((config.get('optim_wrapper') or {}).get('type')) and device:
        advice.append('train with --amp bf16')
    advice.append('lower the scale of the images' + _scale(config))
    return 'one of: ' + ', '.join([*advice, *([] if device else [_workers(config)])])


def _workers(config: Config) -> str:
    workers = (config.get('train_dataloader') or {}).get('num_workers', 0)
    return f'lower train_dataloader.num_workers={workers}' if workers else 'close other programs'


def _scale(config: Config) -> str:
    """The size that the training pipeline makes, where one of its steps names it."""
    dataset = (config.get('train_dataloader') or {}).get('dataset') or {}
    while dataset.get('dataset'):
        dataset = dataset['dataset']
    for step in dataset.get('pipeline') or ():
        for key in ('crop_size', 'scale', 'img_scale', 'scales'):
            if step.get(key):
                return f' ({step["type"]} {key}={step[key]})'
    return ''
