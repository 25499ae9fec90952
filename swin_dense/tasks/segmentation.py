"""Semantic segmentation: a class for every pixel, label maps, mIoU."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.structures import BaseDataElement
from torch import nn

from swin_dense.check import data_sets
from swin_dense.console.findings import Finding
from swin_dense.data import ade20k
from swin_dense.data.fields import inner_datasets
from swin_dense.drawing.pictures import Drawing, Pair
from swin_dense.evaluate import ade20k as pixels
from swin_dense.evaluate import offline
from swin_dense.formats.predictions import LabelMap, label_type
from swin_dense.tasks import segmentation_examples
from swin_dense.tasks.segmentation_output import SegmentationOutput
from swin_dense.tasks.task import ALL_SPLITS, DataOptions, Scored, Task, Texts, Tiling, Wanted
from swin_dense.tiling.label_maps import predict_labels


@dataclass(frozen=True)
class Truth:
    """Label maps to score against.

    Attributes:
        samples: images with their label maps.
        classes: names.
    """

    samples: list[pixels.Sample]
    classes: tuple[str, ...]


class Segmentation(Task[Truth, LabelMap]):
    """See the module."""

    name = 'segmentation'
    scopes = ('mmseg',)
    in_percent = True
    texts = Texts(
        headline='Semantic segmentation: how well the model classifies every pixel',
        amount=('labelled_pixels', 'labelled pixels'),
        unit='pixels',
        remainder='no prediction',
        matrix='Each row is what the pixels of a class were taken for, in percent of the row.',
        value='The number of an image is its mIoU, the mean overlap of its classes.',
        mark=('unlabelled', 'no label'),
    )

    def point_at(self, config: Config, root: Path) -> None:
        ade20k.point_at(config, root)

    def name_classes(self, config: Config, given: DataOptions) -> None:
        ade20k.name_classes(config, given.root, given.classes, given.options, given.zero_label)

    def check(
        self, config: Config, decode: bool, splits: Sequence[str] = ALL_SPLITS, skip_bad: bool = False
    ) -> list[Finding]:
        return data_sets.check_label_maps(config, decode, splits, skip_bad)

    def truth(self, sample: BaseDataElement) -> Drawing:
        return Drawing(label_map=_labels(sample.gt_sem_seg))

    def pair(self, sample: BaseDataElement) -> Pair:
        return Pair(
            Path(sample.img_path), self.truth(sample), Drawing(label_map=_labels(sample.pred_sem_seg))
        )

    def header(self, dataset: Any) -> dict[str, str]:  # noqa: ANN401
        if dataset.reduce_zero_label:
            return {'label 0': 'unlabelled: ignored in training and evaluation'}
        return {'label 0': f'the class {dataset.metainfo["classes"][0]!r}'}

    def amount(self, samples: Sequence[BaseDataElement]) -> str:
        return f'{len(samples)} label maps'

    def wrote(self, path: Path) -> bool:
        return path.is_dir()

    def hand_out(self, config: Config, written: Path, out: Path) -> None:
        out.mkdir(parents=True, exist_ok=True)
        for sample in self.ground_truth(config).samples:
            target = out / f'{sample.name}.png'
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(written / f'{sample.name}.png', target)

    def ground_truth(self, config: Config, root: Path | None = None) -> Truth:
        if root is not None:
            ade20k.point_at(config, root)
        return _truth_of(inner_datasets(config.test_dataloader.dataset))

    def truth_of_folder(self, given: DataOptions) -> Truth:
        _, validation = ade20k.of_folder(given.root or Path(), given.classes, given.zero_label)
        return _truth_of([validation])

    def score(self, truth: Truth, predictions: Path) -> Scored:
        counted = pixels.count(truth.samples, truth.classes, predictions)
        return Scored(
            offline.of_label_maps(counted), lambda: segmentation_examples.of_label_maps(counted, predictions)
        )

    def prediction(
        self, sample: BaseDataElement, classes: tuple[str, ...], model: nn.Module, logits: bool
    ) -> LabelMap:
        labels = _labels(sample.pred_sem_seg).astype(label_type(len(classes)))
        return LabelMap(labels, classes, sample.seg_logits.data.cpu().numpy() if logits else None)

    def tiled(
        self,
        predict: Callable[[Sequence[np.ndarray], bool], Sequence[LabelMap]],
        model: nn.Module,
        image: np.ndarray,
        tiling: Tiling,
    ) -> LabelMap:
        # mmseg's rule for a head of a single logit
        threshold = getattr(model.decode_head, 'threshold', None) or 0.5
        return predict_labels(
            lambda tiles: predict(tiles, True),
            image,
            tiling.size,
            tiling.overlap,
            tiling.batch,
            threshold,
            tiling.track,
        )

    def output(self, wanted: Wanted) -> SegmentationOutput:
        return SegmentationOutput(wanted)


def _labels(field: BaseDataElement) -> np.ndarray:
    """(H, W) labels of a sample's (1, H, W) pixels."""
    return field.data.squeeze(0).cpu().numpy()


def _truth_of(configs: Sequence[dict]) -> Truth:
    datasets = [pixels.build(config) for config in configs]
    return Truth(pixels.samples(datasets), tuple(datasets[0].metainfo['classes']))
