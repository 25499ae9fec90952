"""Detections against COCO ground truth, by pycocotools itself: AP, by class and by size, and curves."""

import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from mmengine.config import Config
from pycocotools import mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from swin_dense.data.coco import named_classes, read_annotations
from swin_dense.data.fields import evaluators, inner_datasets
from swin_dense.errors import UserError
from swin_dense.formats import coco_results

# the 12 values of pycocotools in its order: AP and AR (at most 100 detections unless the name says other)
SCORES = (
    *('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l'),
    *('AR@1', 'AR@10', 'AR@100', 'AR_s@100', 'AR_m@100', 'AR_l@100'),
)
STANDARD = (1, 10, 100)  # detections an image that pycocotools counts
MMDET = (100, 300, 1000)  # and mmdet's CocoMetric where its config names no proposal_nums
SIZES = {'s': 'small', 'm': 'medium', 'l': 'large'}


@dataclass(frozen=True)
class Rules:
    """The scoring rules of a config's evaluator.

    Attributes:
        kinds: ``bbox`` and / or ``segm``; used where a result file does not tell.
        limits: detections an image that are counted. pycocotools' mAP counts 100 whatever they are,
            mAP_50, mAP_75 and those by size the highest: 1000 in mmdet, 100 in pycocotools' standard.
        classes: names of the classes that count, None for all.
    """

    kinds: tuple[str, ...] = ('bbox',)
    limits: tuple[int, ...] = STANDARD
    classes: tuple[str, ...] | None = None


def rules(config: Config) -> Rules:
    """The rules of a config's test evaluator and test loader.

    Raises:
        UserError: the evaluator is not COCO's, or has IoU thresholds of its own.
    """
    metrics = [m for m in evaluators(config, 'test_evaluator') if str(m['type']).endswith('CocoMetric')]
    if not metrics:
        raise UserError(f'config {config.filename}: test_evaluator has no CocoMetric')
    if metrics[0].get('iou_thrs') is not None:
        raise UserError(f"config {config.filename}: test_evaluator.iou_thrs: only COCO's are scored here")
    metric = metrics[0].get('metric', 'bbox')
    kinds = [metric] if isinstance(metric, str) else metric
    dataset = inner_datasets(config.test_dataloader.dataset)[0]
    return Rules(
        tuple(kind for kind in kinds if kind in coco_results.FIELDS),
        tuple(metrics[0].get('proposal_nums', MMDET)),
        named_classes(dataset),
    )


@dataclass
class Scores:
    """One kind of prediction, scored.

    Attributes:
        kind: ``bbox`` or ``segm``.
        evaluation: pycocotools' own, after ``accumulate``.
        limit: detections an image that mAP_50, mAP_75 and those by size count.
        names: class names, in the order of ``evaluation.params.catIds``.
    """

    kind: str
    evaluation: COCOeval
    limit: int
    names: tuple[str, ...] = field(default_factory=tuple)

    def precision(self, *, iou: float | None = None, size: str = 'all', limit: int = 100) -> np.ndarray:
        """(T, 101, K) precision at each IoU threshold and recall, of each class; -1 without objects."""
        cells = self.evaluation.eval['precision'][..., self._size(size), self._limit(limit)]
        return cells if iou is None else cells[iou == self.evaluation.params.iouThrs]

    def recall(self, *, size: str = 'all', limit: int = 100) -> np.ndarray:
        """(T, K) highest recall at each IoU threshold, of each class; -1 without objects of that size."""
        return self.evaluation.eval['recall'][..., self._size(size), self._limit(limit)]

    def curves(self, iou: float = 0.5) -> np.ndarray:
        """(K, 101) precision at recall 0, 0.01, ..., 1 of each class; -1 where it has no object."""
        return self.precision(iou=iou, limit=self.limit)[0].T

    def metrics(self, limit: int | None = None) -> dict[str, float]:
        """The 12 values under ``SCORES``' names, ``bbox_mAP`` or ``segm_mAP`` first; -1 is undefined.

        Args:
            limit: detections an image that mAP_50, mAP_75 and those by size count.
        """
        limit = limit or self.limit
        cells = [
            self.precision(),
            self.precision(iou=0.5, limit=limit),
            self.precision(iou=0.75, limit=limit),
            *(self.precision(size=size, limit=limit) for size in SIZES.values()),
            *(self.recall(limit=count) for count in STANDARD),
            *(self.recall(size=size) for size in SIZES.values()),
        ]
        return {f'{self.kind}_{name}': _mean(c) for name, c in zip(SCORES, cells, strict=True)}

    def per_class(self) -> list[dict]:
        """For each class its name, objects, detections, AP, AP50, AP75, by size, and AR@100.

        Crowds are no objects. A value is None where the class has no object (of that size).
        """
        truth, detections = self.evaluation.cocoGt, self.evaluation.cocoDt
        columns = {
            'AP': self.precision(),
            'AP50': self.precision(iou=0.5, limit=self.limit),
            'AP75': self.precision(iou=0.75, limit=self.limit),
            **{f'AP_{s}': self.precision(size=size, limit=self.limit) for s, size in SIZES.items()},
            'AR@100': self.recall(),
        }
        rows = []
        for i, category in enumerate(self.evaluation.params.catIds):
            objects = truth.loadAnns(truth.getAnnIds(catIds=category))
            row = dict(
                name=self.names[i],
                objects=sum(not annotation['iscrowd'] for annotation in objects),
                detections=len(detections.getAnnIds(catIds=category)),
            )
            values = {key: _mean(cells[..., i]) for key, cells in columns.items()}
            rows.append(row | {key: None if value == -1 else value for key, value in values.items()})
        return rows

    def counts(self) -> dict[str, int]:
        """Objects, crowds, detections, images, and images without a detection."""
        truth, detections = self.evaluation.cocoGt, self.evaluation.cocoDt
        chosen = set(self.evaluation.params.catIds)
        counted = [a for a in truth.dataset['annotations'] if a['category_id'] in chosen]
        detected = [a for a in detections.dataset['annotations'] if a['category_id'] in chosen]
        crowds = sum(bool(a['iscrowd']) for a in counted)
        return dict(
            images=len(truth.imgs),
            objects=len(counted) - crowds,
            crowds=crowds,
            detections=len(detected),
            images_without_predictions=len(truth.imgs.keys() - {a['image_id'] for a in detected}),
        )

    def _size(self, size: str) -> int:
        return self.evaluation.params.areaRngLbl.index(size)

    def _limit(self, limit: int) -> int:
        return self.evaluation.params.maxDets.index(limit)


def load_truth(annotations: Path) -> COCO:
    """The ground truth as pycocotools can score against it; the file stays as it is.

    Raises:
        UserError: a file that is missing, broken, or lacks what a score needs.
    """
    content = read_annotations(annotations)
    _check(content, annotations)
    api = COCO()
    api.dataset = {**content, 'annotations': [dict(annotation) for annotation in content['annotations']]}
    complete(api)
    return api


def complete(api: COCO) -> None:
    """Fill what files leave out and pycocotools' definition makes clear, in place.

    Annotations are numbered anew where an id is 0, absent or used twice: pycocotools takes a match with
    annotation 0 for none. ``iscrowd`` is 0 where absent, ``area`` the mask's, or the box's.
    """
    annotations = api.dataset.get('annotations') or []
    ids = [annotation.get('id') for annotation in annotations]
    if not all(ids) or len(set(ids)) < len(ids):
        for number, annotation in enumerate(annotations, 1):
            annotation['id'] = number
    sizes = {image['id']: image for image in api.dataset['images']}
    for annotation in annotations:
        annotation.setdefault('iscrowd', 0)
        if annotation.get('area') is None:
            annotation['area'] = _area(annotation, sizes.get(annotation['image_id'], {}))
    with redirect_stdout(io.StringIO()):
        api.createIndex()


def evaluate(truth: COCO, predictions: Path, rules: Rules | None = None) -> list[Scores]:
    """Score a result file, or the folder that a run has left: one ``Scores`` for each kind in it.

    Raises:
        UserError: the predictions cannot be read, or name what the ground truth lacks.
        NotFiniteError: a box or score is NaN or infinite.
    """
    rules = rules or Rules()
    of_kinds = coco_results.read_results(predictions, truth, rules.kinds)
    return [score_entries(truth, kind, entries, rules) for kind, entries in of_kinds.items()]


def score_entries(truth: COCO, kind: str, entries: list[dict], rules: Rules) -> Scores:
    """Score the entries of one kind; there may be none."""
    categories = {category: entry['name'] for category, entry in truth.cats.items()}
    if rules.classes is not None:
        categories = {key: name for key, name in categories.items() if name in rules.classes}
    with redirect_stdout(io.StringIO()):
        evaluation = COCOeval(truth, coco_results.as_coco(truth, entries), kind)
        evaluation.params.catIds = sorted(categories)
        evaluation.params.maxDets = sorted({*STANDARD, *rules.limits})
        evaluation.evaluate()
        evaluation.accumulate()
    names = tuple(categories[key] for key in evaluation.params.catIds)
    return Scores(kind, evaluation, max(rules.limits), names)


def score(annotations: Path, predictions: Path, rules: Rules | None = None) -> dict[str, float]:
    """All 12 COCO values for each kind of prediction in a result file.

    Returns:
        ``bbox_mAP``, ``bbox_mAP_50``, ... ``segm_AR_l@100``; -1 where no object is of that size.

    Raises:
        UserError, NotFiniteError: as ``load_truth`` and ``evaluate``.
    """
    scored = evaluate(load_truth(annotations), predictions, rules)
    return {name: value for scores in scored for name, value in scores.metrics().items()}


def limit_note(scores: Sequence[Scores]) -> str:
    """One line where the config's limit of detections and pycocotools' standard give other values."""
    changed = []
    for kind in scores:
        standard = kind.metrics(limit=100)
        shown = {name: f'{value:.3f}' for name, value in standard.items()}
        changed += [f'{k} {shown[k]}' for k, v in kind.metrics().items() if f'{v:.3f}' != shown[k]]
    if not changed:
        return ''
    return (
        f'the evaluator counts up to {scores[0].limit} detections an image (proposal_nums), '
        f"pycocotools' standard of 100 gives {', '.join(changed)}"
    )


def _mean(cells: np.ndarray) -> float:
    """Of the defined cells at once, as pycocotools does, so that not even rounding differs."""
    defined = cells[cells > -1]
    return float(defined.mean()) if len(defined) else -1.0


def _area(annotation: dict, image: dict) -> float:
    segmentation = annotation.get('segmentation')
    if segmentation and image.get('height') and image.get('width'):
        api = COCO()
        api.imgs = {annotation['image_id']: image}
        return float(mask.area(api.annToRLE(annotation)))
    return float(annotation['bbox'][2] * annotation['bbox'][3])


def _check(content: dict, path: Path) -> None:
    """Check the fields that a score needs."""
    for key, fields in (('images', ('id',)), ('categories', ('id',))):
        for entry in content[key]:
            if any(field not in entry for field in fields):
                raise UserError(f'annotations {path}: {key}: the field {fields[0]!r} is missing')
    for annotation in content['annotations']:
        for key in ('image_id', 'category_id', 'bbox'):
            if not isinstance(annotation, dict) or key not in annotation:
                raise UserError(f'annotations {path}: annotations: the field {key!r} is missing')
