"""Panoptic segmentation: every pixel belongs to a thing, told apart from others, or to stuff; PQ."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.config import Config
from mmengine.structures import BaseDataElement
from torch import nn

from swin_dense.check import panoptic_sets as checks
from swin_dense.console.findings import Finding
from swin_dense.data import panoptic
from swin_dense.data.fields import evaluators, inner_datasets, set_classes
from swin_dense.drawing.pictures import Drawing, Pair
from swin_dense.errors import UserError
from swin_dense.evaluate import offline
from swin_dense.evaluate import panoptic_sets as quality
from swin_dense.evaluate.panoptic_metric import SUFFIX, of_sample
from swin_dense.formats.label_maps import IGNORED
from swin_dense.formats.predictions import INSTANCE_OFFSET, PanopticMap
from swin_dense.tasks import panoptic_examples
from swin_dense.tasks.panoptic_output import PanopticOutput
from swin_dense.tasks.task import ALL_SPLITS, DataOptions, Scored, Task, Texts, Wanted


class Panoptic(Task[quality.Truth, PanopticMap]):
    """See the module."""

    name = 'panoptic segmentation'
    scopes = ('mmdet',)
    texts = Texts(
        headline='Panoptic segmentation: how well the model finds, outlines and classifies segments',
        amount=('segments', 'segments'),
        unit='pixels',
        remainder='no segment',
        matrix='Each row is what the pixels of a class were taken for, in percent of the row.',
        value='The number of an image is its PQ over all segments: 1 if every segment is matched exactly and '
        'no other is predicted.',
        mark=('unlabelled', 'no segment'),
    )

    def takes(self, config: Config) -> bool:
        return super().takes(config) and panoptic.is_panoptic(config)

    def point_at(self, config: Config, root: Path) -> None:
        panoptic.point_at(config, root)

    def name_classes(self, config: Config, given: DataOptions) -> None:
        _refuse_label_options(given)
        panoptic.check_options(given.options)
        panoptic.name_classes(config)

    def check(
        self, config: Config, decode: bool, splits: Sequence[str] = ALL_SPLITS, skip_bad: bool = False
    ) -> list[Finding]:
        return checks.check_config(config, decode, splits, skip_bad)

    def truth(self, sample: BaseDataElement) -> Drawing:
        """Masks of things over the label map, as the batch has them: a crowd is a part of its class."""
        labels = sample.gt_sem_seg.sem_seg.squeeze(0).cpu().numpy()
        instances = sample.gt_instances.cpu()
        things = instances.labels.numpy().astype(np.int64)
        stuff = [label for label in np.unique(labels).tolist() if label != IGNORED]
        kinds = np.concatenate([np.array(stuff, np.int64), things])
        segments = np.full(labels.shape, len(kinds), np.int64)
        for place, label in enumerate(stuff):
            segments[labels == label] = place
        for place, mask in enumerate(instances.masks.to_ndarray().astype(bool), len(stuff)):
            segments[mask] = place
        present, index = np.unique(segments, return_inverse=True)
        kept = present[present < len(kinds)]  # things cover their class whole, less its crowds
        return Drawing(kinds[kept], segments=index.reshape(labels.shape))

    def pair(self, sample: BaseDataElement) -> Pair:
        truth = self.truth(sample)
        height, width = sample.ori_shape[:2]
        truth.segments = cv2.resize(
            np.asarray(truth.segments, np.float32), (width, height), interpolation=cv2.INTER_NEAREST
        ).astype(np.int64)
        values = sample.pred_panoptic_seg.sem_seg.squeeze(0).cpu().numpy()
        present, index = np.unique(values, return_inverse=True)
        prediction = Drawing(present % INSTANCE_OFFSET, segments=index.reshape(values.shape))
        return Pair(Path(sample.img_path), truth, prediction)

    def amount(self, samples: Sequence[BaseDataElement]) -> str:
        return f'{" + ".join(str(len(sample.gt_instances)) for sample in samples)} things'

    def wrote(self, path: Path) -> bool:
        return quality.is_predictions(path) or (path / f'predictions{SUFFIX}.json').is_file()

    def of_run(self, work_dir: Path) -> Path:
        return work_dir / f'predictions{SUFFIX}.json'

    def hand_out(self, config: Config, written: Path, out: Path) -> None:
        """Copy the JSON file, and the PNGs to the folder of its name."""
        source = Path(f'{written}{SUFFIX}.json')
        target = out.with_suffix('.json')
        folder = target.with_suffix('')
        folder.mkdir(parents=True, exist_ok=True)
        for annotation in json.loads(source.read_text())['annotations']:
            png = folder / annotation['file_name']
            png.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source.with_suffix('') / annotation['file_name'], png)
        shutil.copyfile(source, target)

    def ground_truth(self, config: Config, root: Path | None = None) -> quality.Truth:
        if root is not None:
            return self.truth_of_folder(DataOptions(root))
        dataset = inner_datasets(config.test_dataloader.dataset)[0]
        images = Path(dataset.get('data_root') or '') / (dataset['data_prefix'].get('img') or '')
        metric = next(
            (m for m in evaluators(config, 'test_evaluator') if str(m['type']).endswith('PanopticMetric')), {}
        )
        path = Path(metric.get('ann_file') or panoptic.annotation_file(dataset))
        pngs = Path(metric.get('seg_prefix') or panoptic.png_folder(dataset))
        return quality.load_truth(path, pngs, images)

    def truth_of_folder(self, given: DataOptions) -> quality.Truth:
        _refuse_label_options(given)
        split = panoptic.find_split(given.root or Path(), 'val')
        return quality.load_truth(split.annotations, split.pngs, split.images)

    def score(self, truth: quality.Truth, predictions: Path) -> Scored:
        if predictions.is_dir():
            predictions = predictions / f'predictions{SUFFIX}.json'
        scores = quality.evaluate(truth, predictions)
        return Scored(offline.of_segments(scores), lambda: panoptic_examples.of_segments(scores))

    def fit_heads(self, model: Mapping[str, Any], data: Mapping[str, Any]) -> None:
        things = len(data.get('thing_classes') or ())
        set_classes(model, things, len(data['classes']) - things)

    def prediction(
        self, sample: BaseDataElement, classes: tuple[str, ...], model: nn.Module, logits: bool
    ) -> PanopticMap:
        head: Any = model.panoptic_fusion_head
        return of_sample(sample, classes, head.num_things_classes)

    def output(self, wanted: Wanted) -> PanopticOutput:
        return PanopticOutput(wanted)


def _refuse_label_options(given: DataOptions) -> None:
    if given.classes is not None:
        raise UserError('--classes is for segmentation: a panoptic annotation file names its classes itself')
    if given.zero_label is not None:
        raise UserError('--zero-label is for segmentation: 0 is no segment in panoptic annotations')
