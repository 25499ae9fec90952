"""Mean and standard deviation of each channel over a data set, exact and in one pass."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS, TRANSFORMS
from rich.progress import track

from swin_dense.data.fields import inner_datasets
from swin_dense.errors import UserError


def channel_statistics(images: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation over all pixels of all images, as if they were one array.

    Args:
        images: (H, W, C) each, of any sizes and any type; read once, one at a time.

    Returns:
        (C,) float64 each.

    Raises:
        UserError: there are no pixels, or the number of channels changes.
    """
    count, mean, squares = 0, np.zeros(0), np.zeros(0)
    for image in images:
        values = image.reshape(-1, image.shape[-1]).astype(np.float64)
        if not len(values):
            continue
        if count and values.shape[1] != len(mean):
            raise UserError(f'an image has {values.shape[1]} channels, those before it {len(mean)}')
        own = values.mean(axis=0)
        own_squares = np.square(values - own).sum(axis=0)
        # Chan, Golub and LeVeque 1979: no difference of large sums
        total = count + len(values)
        step = own - mean if count else own
        mean = mean + step * len(values) / total if count else own
        squares = squares + own_squares + step**2 * count * len(values) / total if count else own_squares
        count = total
    if not count:
        raise UserError('no image: there is nothing to take a mean of')
    return mean, np.sqrt(squares / count)


def config_statistics(config: Config) -> list[str]:
    """Statistics of a config's training images, as its pipeline loads them: lines for the config.

    Only the step of the pipeline that loads images is run; nothing is resized or augmented. The values
    are in the order in which ``data_preprocessor`` applies them: red, green, blue under ``bgr_to_rgb``.

    Args:
        config: its paths exist; see ``engine.prepare``.

    Raises:
        UserError: no image, or one that cannot be loaded.
    """
    mean, std = channel_statistics(_training_images(config))
    preprocessor = config.model.get('data_preprocessor') or {}
    if len(mean) == 3 and (preprocessor.get('bgr_to_rgb') or preprocessor.get('rgb_to_bgr')):
        mean, std = mean[::-1], std[::-1]
    values = {name: [float(f'{v:.6g}') for v in row] for name, row in (('mean', mean), ('std', std))}
    return [
        'model = dict(data_preprocessor=dict(',
        f'    mean={values["mean"]},',
        f'    std={values["std"]}))',
    ]


def _training_images(config: Config) -> Iterator[np.ndarray]:
    """Each image once, however often wrappers repeat it."""
    for dataset in inner_datasets(config.train_dataloader['dataset']):
        load = TRANSFORMS.build(_loading_step(dataset))
        data = DATASETS.build({**dataset, 'pipeline': [], 'filter_cfg': None})
        for index in track(range(len(data)), 'reading the training images', transient=True):
            path = data.get_data_info(index)['img_path']
            try:
                yield load({'img_path': path})['img']
            except UserError:
                raise
            except Exception as error:  # what a loading step raises depends on its back end
                raise UserError(f'image {path} cannot be loaded: {error}') from error


def _loading_step(dataset: dict) -> dict:
    for step in dataset.get('pipeline') or ():
        if str(step['type']).split('.')[-1].startswith('Load') and 'Annotations' not in str(step['type']):
            return step
    name = Path(str(dataset.get('data_root') or dataset.get('ann_file') or '')).name
    raise UserError(f'train_dataloader: the pipeline of the data set {name!r} has no step that loads images')
