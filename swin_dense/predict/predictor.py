"""One image in, its objects or label map out."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.device import get_device
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from torch import Tensor

from swin_dense.formats.predictions import Predicted
from swin_dense.predict.model import Loaded, load_model
from swin_dense.predict.pipeline import Pipeline
from swin_dense.tasks.task import Tiling
from swin_dense.tiling.tiles import Track, untracked

LONGEST = 32  # times the short side: what thicker images are made of where a pipeline shrinks them to nothing


class Predictor:
    """A trained detector or segmentor, on images instead of a data set.

    The host's test pipeline and ``model.test_step`` run as in ``tools/test.py``: the same file gives the
    same predictions. Nothing but the checkpoint is needed; its config and classes travel in it.

    Args:
        checkpoint: file or http(s) address. Read without running anything that it contains.
        config: the config to build the model from, in place of the checkpoint's own.
        device: ``'cpu'``, ``'cuda'``, ``'cuda:N'``, ``'mps'``; None for the best there is.

    Attributes:
        classes: names; ``labels`` and label maps are indices into them.
        task: ``'detection'`` or ``'segmentation'``.
        channels: of the images that the model takes.
        report: what the checkpoint gave to the model.
        reduces_zero_label: whether label maps of the training data begin with 1, and 0 is unlabelled.

    Raises:
        UserError: the file is missing or damaged, holds no config, or lacks weights.
        UnsafeFileError: it, or the config in it, would run code.
    """

    def __init__(
        self, checkpoint: str | Path, config: Config | None = None, device: str | None = None
    ) -> None:
        loaded: Loaded = load_model(str(checkpoint), config)
        self.classes, self.task = loaded.classes, loaded.task.name
        self._task = loaded.task
        self.reduces_zero_label = loaded.reduces_zero_label
        self.report, self.channels = loaded.report, loaded.channels
        self._scope = loaded.scope
        self._guarded = loaded.guarded
        with loaded.guarded():
            self._pipeline = Pipeline(loaded.pipeline, loaded.channels)
        self._model = revert_sync_batchnorm(loaded.model).to(device or get_device()).eval()

    def __call__(self, image: np.ndarray | Tensor | str | Path, logits: bool = False) -> Predicted:
        """Predict for one image.

        Args:
            image: a path; an array (H, W, 3) uint8 RGB, (H, W) gray or (H, W, 4) with alpha, or the same in
                uint16; a tensor (3, H, W) RGB, uint8 or floats from 0 to 1. For a model of other than three
                channels, an array (H, W, C) as its pipeline loads it.
            logits: keep the logits of a label map.

        Raises:
            UserError: the file cannot be read.
            ValueError: an array or tensor of another shape or type.
        """
        loaded = (
            self.read(Path(image)) if isinstance(image, (str, Path)) else self._pipeline.from_array(image)
        )
        return self.predict([loaded], logits)[0]

    def read(self, path: Path) -> np.ndarray:
        """An image file as the test pipeline loads it: (H, W, 3) BGR for all but special pipelines."""
        with self._guarded([path]):
            return self._pipeline.read(path)

    def predict(self, images: Sequence[np.ndarray], logits: bool = False) -> list[Predicted]:
        """Predict for images as ``read`` returns them, together where they have the same size.

        Images of several sizes would be padded to the largest, and a prediction depend on its neighbours.
        """
        init_default_scope(self._scope)
        results: dict[int, Predicted] = {}
        groups: dict[tuple[int, ...], list[tuple[int, dict]]] = {}
        for index, image in enumerate(images):
            try:
                with self._guarded():
                    packed = self._pipeline.prepare(image)
            except cv2.error as error:  # a side was scaled to nothing
                results[index] = self._predict_thin(image, logits, error)
            else:
                groups.setdefault(tuple(packed['inputs'].shape), []).append((index, packed))
        for group in groups.values():
            with torch.inference_mode():
                samples = self._model.test_step(pseudo_collate([packed for _, packed in group]))
            for (index, _), sample in zip(group, samples, strict=True):
                results[index] = self._task.prediction(sample, self.classes, self._model, logits)
        return [results[index] for index in range(len(images))]

    def predict_tiled(
        self,
        image: np.ndarray,
        tile: int,
        overlap: float = 0.25,
        batch: int = 1,
        track: Track = untracked,
    ) -> Predicted:
        """Predict for one large image as ``read`` returns it, tile by tile; memory is bounded by the tile.

        Args:
            image: (H, W, C).
            tile: side in pixels of the image.
            overlap: fraction of the tile that neighbours share: logits are averaged there, objects joined.
            batch: tiles predicted together.
            track: shows the progress.

        Raises:
            UserError: a tile without pixels, or an overlap that is no fraction below 1.
        """
        return self._task.tiled(self.predict, self._model, image, Tiling(tile, overlap, batch, track))

    def _predict_thin(self, image: np.ndarray, logits: bool, error: cv2.error) -> Predicted:
        """The prediction of a line of pixels, repeated until the pipeline does not scale it to nothing."""
        height, width = image.shape[:2]
        least = -(-max(height, width) // LONGEST)
        if min(height, width) >= least:
            raise error
        thick = np.pad(
            image,
            ((0, max(0, least - height)), (0, max(0, least - width)), (0, 0))[: image.ndim],
            mode='edge',
        )
        return self.predict([thick], logits)[0].crop(height, width)
