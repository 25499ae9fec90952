"""Panoptic quality in a run, with the predictions left as COCO's panoptic results."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from mmengine.dist import is_main_process
from mmengine.evaluator import BaseMetric

from swin_dense.evaluate.label_folder import LabelFolder, map_names
from swin_dense.evaluate.panoptic import Segment
from swin_dense.evaluate.panoptic_sets import Map, compare_maps, load_truth, metrics, total
from swin_dense.formats.panoptic_pngs import colours_of
from swin_dense.formats.predictions import PanopticMap, panoptic_map
from swin_dense.registry import METRICS
from swin_dense.storage import atomic

SUFFIX = '.panoptic'  # mmdet's, between a prefix and .json


def as_map(predicted: PanopticMap) -> Map:
    """A prediction in the form in which maps are compared."""
    segments = {number: Segment(label) for number, label in enumerate(predicted.labels.tolist(), 1)}
    return Map(predicted.ids, segments)


def segments_info(predicted: PanopticMap, categories: Mapping[int, int | str]) -> list[dict]:
    """The segments of a prediction in the form of JSON; ``categories``: the id of each label."""
    areas = np.bincount(predicted.ids.ravel(), minlength=len(predicted.labels) + 1)[1:]
    return [
        {
            'id': number,
            'category_id': categories[label],
            'isthing': int(label < predicted.things),
            'area': area,
        }
        for number, (label, area) in enumerate(zip(predicted.labels.tolist(), areas.tolist(), strict=True), 1)
    ]


@METRICS.register_module()
class CocoPanopticMetric(BaseMetric):
    """PQ, SQ and RQ as fractions: of all classes, of things (``PQ_th``) and of stuff (``PQ_st``).

    It leaves ``PREFIX.panoptic.json`` beside the folder ``PREFIX.panoptic`` of PNGs.

    Args:
        ann_file: COCO's panoptic annotations.
        seg_prefix: the folder of their PNGs.
        outfile_prefix: where the predictions are left; None for nowhere.
        format_only: compute nothing.
        collect_device, prefix: as of mmengine's metrics.
    """

    default_prefix = 'coco_panoptic'

    def __init__(
        self,
        ann_file: str,
        seg_prefix: str,
        outfile_prefix: str | None = None,
        format_only: bool = False,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.format_only = format_only
        self._truth = load_truth(Path(ann_file), Path(seg_prefix), Path())
        self._json = None if outfile_prefix is None else Path(f'{outfile_prefix}{SUFFIX}.json')
        self._folder = None if self._json is None else LabelFolder(self._json.with_suffix(''))

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Compare the predictions of a batch, and write their PNGs.

        Raises:
            DiskFullError: there is no space; the predictions of an earlier evaluation are intact.
            UserError: a PNG of the ground truth is broken, or one cannot be written.
        """
        count = len(self._truth.classes.names)
        ids = {label: category for category, label in self._truth.labels.items()}
        for sample in data_samples:
            image, path = sample['img_id'], sample['img_path']
            predicted = of_sample(sample, self._truth.classes.names, len(self._truth.classes.things))
            compared = None
            if not self.format_only:
                compared = compare_maps(image, self._truth.read(image), as_map(predicted), count)
            self.results.append((path, image, segments_info(predicted, ids), compared))
            if self._folder is not None:
                self._folder.add(path, colours_of(predicted.ids))

    def evaluate(self, size: int) -> dict[str, float]:
        """Put the predictions in their place, and compute the figures; errors as ``process``."""
        if self._folder is not None and self._json is not None:
            if is_main_process():
                self._json.unlink(missing_ok=True)  # it describes the PNGs that are replaced now
            self._folder.finish()
        return super().evaluate(size)

    def compute_metrics(self, results: list) -> dict[str, float]:
        """The figures of all images; the JSON file is written first."""
        if self._json is not None:
            names = map_names(Path(path) for path, *_ in results)
            annotations = [
                {'image_id': image, 'file_name': f'{names[Path(path)]}.png', 'segments_info': segments}
                for path, image, segments, _ in results
            ]
            atomic.write_text(self._json, json.dumps({'annotations': annotations}))
        if self.format_only:
            return {}
        count = len(self._truth.classes.names)
        return metrics(total([compared for *_, compared in results], count), self._truth.classes)


def of_sample(sample: dict, classes: tuple[str, ...], things: int) -> PanopticMap:
    """The prediction in a host's data sample, a dict or an object with fields."""
    field = sample['pred_panoptic_seg'] if isinstance(sample, dict) else sample.pred_panoptic_seg
    ignored = field.get('ignore_index', None)
    pixels = field['sem_seg'] if isinstance(field, dict) else field.sem_seg
    return panoptic_map(pixels.squeeze(0).cpu().numpy(), classes, things, ignored)
