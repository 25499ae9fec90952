"""The host's test pipeline, fed with files or with arrays."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from mmcv.transforms import Compose
from torch import Tensor

from swin_dense.errors import UserError

NEED_LABELS = ('LoadAnnotations', 'LoadPanopticAnnotations', 'LoadProposals', 'FilterAnnotations')


class Pipeline:
    """A test pipeline in two halves: what loads the image, and what follows, less what loads labels.

    Args:
        steps: the config of the pipeline.
        channels: of the images that the model takes.

    Raises:
        UserError: nothing in it loads an image.
    """

    def __init__(self, steps: Sequence[dict], channels: int) -> None:
        names = [str(step['type']).rpartition('.')[2] for step in steps]
        loads = [i for i, name in enumerate(names) if name.startswith('Load') and name not in NEED_LABELS]
        if not loads:
            raise UserError(f'the test pipeline ({", ".join(names)}) loads no image')
        rest = [step for step, name in zip(steps, names, strict=True) if name not in NEED_LABELS]
        self.channels = channels
        self._load = Compose(steps[: loads[0] + 1])
        self._rest = Compose(rest[loads[0] + 1 :])
        self._to_float = steps[loads[0]].get('to_float32', False)

    def read(self, path: Path) -> np.ndarray:
        """The image of a file: (H, W, C), uint8 unless the pipeline loads others.

        Raises:
            UserError: it is missing, no image, damaged, or larger than OpenCV decodes.
        """
        if not path.is_file():
            raise UserError(f'image {path} does not exist (looked for {path.absolute()})')
        try:
            return self._load({'img_path': str(path)})['img']
        except UserError:
            raise
        except cv2.error as error:
            if 'IMAGE_PIXELS' in str(error) or 'validateInputImageSize' in str(error):
                raise UserError(
                    f'image {path} has more pixels than OpenCV decodes (OPENCV_IO_MAX_IMAGE_PIXELS, 2^30)'
                ) from error
            raise UserError(f'image {path} cannot be read: {error.err or error}') from error
        except AssertionError as error:  # of the host, where OpenCV returns nothing
            raise UserError(f'image {path} cannot be read: it is damaged, or no image') from error
        except (OSError, ValueError, MemoryError) as error:
            raise UserError(f'image {path} cannot be read: {error}') from error

    def prepare(self, image: np.ndarray) -> dict:
        """The model's input and data sample for an image as ``read`` returns it."""
        height, width = image.shape[:2]
        return self._rest(
            {
                'img': image.astype(np.float32) if self._to_float else image,
                'img_path': '',
                'img_id': 0,
                'img_shape': (height, width),
                'ori_shape': (height, width),
            }
        )

    def from_array(self, image: np.ndarray | Tensor) -> np.ndarray:
        """An image of the caller's as ``read`` would return it.

        Raises:
            ValueError: its shape or type is none of those that ``Predictor`` takes.
        """
        array = _from_tensor(image) if isinstance(image, Tensor) else np.asarray(image)
        if array.ndim == 3 and array.shape[2] == self.channels != 3:
            return array
        if self.channels != 3 or array.ndim not in (2, 3) or 0 in array.shape:
            raise ValueError(f'an image of shape {array.shape} for a model of {self.channels} channels')
        if array.dtype == np.uint16:
            array = (array >> 8).astype(np.uint8)  # as OpenCV reads files
        if array.dtype != np.uint8:
            raise ValueError(f'an image of {array.dtype}: uint8 or uint16 is needed')
        if array.ndim == 2 or array.shape[2] == 1:
            return np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)
        if array.shape[2] not in (3, 4):
            raise ValueError(f'an image of shape {array.shape}: (H, W), (H, W, 3) or (H, W, 4) is needed')
        return np.ascontiguousarray(array[..., 2::-1])


def _from_tensor(image: Tensor) -> np.ndarray:
    if image.ndim != 3:
        raise ValueError(f'a tensor of shape {tuple(image.shape)}: (C, H, W) is needed')
    image = image.detach().cpu()
    if image.is_floating_point():
        if image.numel() and not (image.min() >= 0 and image.max() <= 1):
            raise ValueError('a tensor of floats outside 0 to 1')
        image = (image * 255).round().to(torch.uint8)
    return image.permute(1, 2, 0).numpy()
