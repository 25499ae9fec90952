"""Memory that is used up: what is recognised, and what the line says to lower."""

import errno

import numpy as np
import pytest
import torch
from mmengine.config import Config

from swin_dense.engine import ranks
from swin_dense.engine.failures import as_user_errors
from swin_dense.engine.memory import memory_failure
from swin_dense.engine.workers import WorkerWatch
from swin_dense.errors import FailedRunError, UserError

CONFIG = Config(
    dict(
        model=dict(type='mmdet.MaskRCNN', backbone=dict(type='swin_dense.SwinTransformer')),
        train_dataloader=dict(
            batch_size=4,
            num_workers=2,
            dataset=dict(
                type='RepeatDataset',
                dataset=dict(
                    pipeline=[dict(type='LoadImageFromFile'), dict(type='Resize', scale=(1333, 800))]
                ),
            ),
        ),
        optim_wrapper=dict(type='OptimWrapper'),
    )
)


def line(error: BaseException, config: Config = CONFIG) -> str:
    failure = memory_failure(error, config)
    assert failure.status == 1
    assert str(failure).endswith('; the last checkpoint is intact')
    assert '\n' not in str(failure)
    return str(failure)


def test_of_a_device_it_says_what_to_lower() -> None:
    text = line(torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB.'))
    for advice in (
        'train_dataloader.batch_size=4',
        'model.backbone.with_cp=True',
        '--amp bf16',
        'Resize scale=(1333',
    ):
        assert advice in text
    assert 'num_workers' not in text


@pytest.mark.parametrize(
    'text',
    [
        'CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`',
        'cuDNN error: CUDNN_STATUS_ALLOC_FAILED',
        'cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED',
        'cuFFT error: CUFFT_ALLOC_FAILED',
        'CUDA error: out of memory',
        'HIP out of memory. Tried to allocate 2.00 GiB.',
    ],
)
def test_libraries_that_allocate_on_the_device_themselves(text: str) -> None:
    assert 'train_dataloader.batch_size=4' in line(RuntimeError(text))


def test_of_the_host_it_names_the_workers_too() -> None:
    text = line(MemoryError())
    assert 'lower train_dataloader.num_workers=2' in text
    assert 'lower train_dataloader.batch_size=4' in text
    assert '--amp' not in text


def test_what_is_done_already_is_not_advised() -> None:
    config = Config(
        dict(
            model=dict(backbone=dict(type='swin_dense.SwinTransformerV2', with_cp=True)),
            train_dataloader=dict(batch_size=1, num_workers=0, dataset=dict(pipeline=[])),
            optim_wrapper=dict(type='swin_dense.BFloat16OptimWrapper'),
        )
    )
    text = line(torch.OutOfMemoryError('x'), config)
    assert 'one of: lower the scale of the images;' in text
    assert 'with_cp' not in line(MemoryError(), Config(dict(model=dict(backbone=dict(type='mmdet.ResNet')))))


def test_the_allocators_of_torch_and_numpy() -> None:
    with pytest.raises(RuntimeError) as of_torch:
        torch.empty(2**60, dtype=torch.uint8)
    assert 'the memory of this machine' in line(of_torch.value)
    with pytest.raises(MemoryError) as of_numpy:
        np.empty(2**60, dtype=np.uint8)
    assert 'the memory of this machine' in line(of_numpy.value)


@pytest.mark.parametrize(
    'error',
    [
        OSError(errno.ENOMEM, 'Cannot allocate memory'),
        RuntimeError(
            'Caught MemoryError in DataLoader worker process 0.\nUnable to allocate 7 GiB for an array'
        ),
        RuntimeError('OpenCV(4.10) alloc.cpp:73: error: (-4:Insufficient memory) Failed to allocate 4 bytes'),
        RuntimeError('std::bad_alloc'),
    ],
)
def test_of_the_host(error: Exception) -> None:
    assert 'the memory of this machine' in line(error)


@pytest.mark.parametrize(
    'text',
    [
        "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's workers "
        'are out of shared memory. Please try to raise your shared memory limit.',
        'unable to write to file </torch_77_123_0>: No space left on device (28)',
        'unable to allocate shared memory(shm) for file </torch_7>: Resource temporarily unavailable (11)',
    ],
)
def test_of_the_shared_memory(text: str) -> None:
    assert '/dev/shm' in line(RuntimeError(text))
    assert 'lower train_dataloader.num_workers=2' in line(RuntimeError(text))


@pytest.mark.parametrize(
    'error', [RuntimeError('shape [7]'), OSError(errno.ENOSPC, 'x'), KeyError('memory'), ValueError()]
)
def test_other_errors_are_none_of_it(error: Exception) -> None:
    assert memory_failure(error, CONFIG) is None


def test_a_run_is_told_and_other_errors_pass_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    left = []
    monkeypatch.setattr(ranks, 'leave', left.append)
    with pytest.raises(FailedRunError, match='memory') as caught, as_user_errors(CONFIG, WorkerWatch()):
        raise MemoryError
    assert not caught.value.printed
    assert isinstance(caught.value.__cause__, MemoryError)
    mistake, bug = UserError('one line'), ZeroDivisionError('a bug')
    with pytest.raises(UserError) as caught, as_user_errors(CONFIG, WorkerWatch()):
        raise mistake
    assert caught.value is mistake
    monkeypatch.setattr(ranks, 'first_to_tell', lambda: False)  # another process was before us
    with pytest.raises(UserError), as_user_errors(CONFIG, WorkerWatch()):
        raise mistake
    assert mistake.printed
    with pytest.raises(ZeroDivisionError) as caught, as_user_errors(CONFIG, WorkerWatch()):
        raise bug
    assert caught.value is bug
    assert left[1:] == ['one line', 'one line', 'ZeroDivisionError: a bug']
