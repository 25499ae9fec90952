"""Object detection and instance segmentation: boxes and masks, COCO files, mAP."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.structures import BaseDataElement
from pycocotools.coco import COCO
from torch import nn

from swin_dense.check import data_sets
from swin_dense.console.findings import Finding
from swin_dense.data import coco
from swin_dense.data.fields import inner_datasets
from swin_dense.drawing.pictures import SCORE, Drawing, Pair
from swin_dense.errors import UserError
from swin_dense.evaluate import coco as precision
from swin_dense.evaluate import confusion, offline
from swin_dense.formats.coco_results import FIELDS
from swin_dense.formats.predictions import Instances, encode
from swin_dense.tasks import detection_examples
from swin_dense.tasks.detection_output import DetectionOutput
from swin_dense.tasks.task import ALL_SPLITS, DataOptions, Scored, Task, Texts, Tiling, Wanted
from swin_dense.tiling.instances import predict_instances


@dataclass(frozen=True)
class Truth:
    """Objects to score against.

    Attributes:
        api: the annotations.
        rules: what counts.
        images: the folder that file names are relative to.
        notes: lines for a person.
    """

    api: COCO
    rules: precision.Rules
    images: Path
    notes: list[str] = field(default_factory=list)


class Detection(Task[Truth, Instances]):
    """See the module."""

    name = 'detection'
    scopes = ('mmdet',)
    texts = Texts(
        headline='Object detection: how well the model finds and classifies objects',
        amount=('objects', 'objects'),
        unit='objects',
        remainder='background',
        matrix='Each row is what the objects of a class were taken for, in percent of the row; the last '
        'column is what was not found, the last row what was found where nothing is. Predictions with a '
        'score of at least 0.5, matched at IoU 0.5.',
        value='The number of an image is its F1: 1 if every object is found and nothing else (score at least '
        '0.5, IoU 0.5).',
        mark=('edge', 'white outline: missed, of another class, or where nothing is'),
    )

    def point_at(self, config: Config, root: Path) -> None:
        coco.point_at(config, root)

    def name_classes(self, config: Config, given: DataOptions) -> None:
        _refuse_label_options(given)
        coco.name_classes(config, given.options)

    def check(
        self, config: Config, decode: bool, splits: Sequence[str] = ALL_SPLITS, skip_bad: bool = False
    ) -> list[Finding]:
        return data_sets.check_objects(config, decode, splits, skip_bad)

    def truth(self, sample: BaseDataElement) -> Drawing:
        instances = sample.gt_instances.cpu()
        boxes = getattr(instances.bboxes, 'tensor', instances.bboxes).numpy()
        masks = instances.masks.to_ndarray().astype(bool) if 'masks' in instances else None
        return Drawing(instances.labels.numpy(), boxes, masks)

    def pair(self, sample: BaseDataElement) -> Pair:
        instances = sample.pred_instances.cpu()
        kept = instances[instances.scores >= SCORE]
        masks = kept.masks.numpy() if 'masks' in kept else None
        prediction = Drawing(kept.labels.numpy(), kept.bboxes.numpy(), masks, kept.scores.numpy())
        return Pair(Path(sample.img_path), self.truth(sample), prediction)

    def amount(self, samples: Sequence[BaseDataElement]) -> str:
        return f'{" + ".join(str(len(sample.gt_instances)) for sample in samples)} objects'

    def wrote(self, path: Path) -> bool:
        return path.is_file() or any((path / f'predictions.{kind}.json').is_file() for kind in FIELDS)

    def of_run(self, work_dir: Path) -> Path:
        return work_dir

    def hand_out(self, config: Config, written: Path, out: Path) -> None:
        """Copy the masks with their boxes, or the boxes of a model without masks."""
        files = [Path(f'{written}.{kind}.json') for kind in ('segm', 'bbox')]
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(next(path for path in files if path.is_file()), out)

    def prepare_truth(self, config: Config, given: DataOptions) -> None:
        """Nothing is to be prepared: scores need the annotations, and no images."""
        _refuse_label_options(given)

    def ground_truth(self, config: Config, root: Path | None = None) -> Truth:
        rules = precision.rules(config)
        dataset = inner_datasets(config.test_dataloader.dataset)[0]
        folder = Path(dataset.get('data_root') or '')
        annotations = folder / dataset['ann_file'] if root is None else coco.find_annotations(root, 'val')
        truth = precision.load_truth(annotations)
        _check_classes(config, rules, truth)
        if root is not None:
            return Truth(truth, rules, *_images_below(root))
        return Truth(truth, rules, folder / ((dataset.get('data_prefix') or {}).get('img') or ''))

    def truth_of_folder(self, given: DataOptions) -> Truth:
        _refuse_label_options(given)
        root = given.root or Path()
        truth = precision.load_truth(coco.find_annotations(root, 'val'))
        return Truth(truth, precision.Rules(tuple(FIELDS), precision.MMDET), *_images_below(root))

    def score(self, truth: Truth, predictions: Path) -> Scored:
        scores = precision.evaluate(truth.api, predictions, truth.rules)
        evaluated = offline.of_detections(scores)
        evaluated.notes += truth.notes
        outcomes = confusion.outcomes(scores[-1])
        return Scored(evaluated, lambda: detection_examples.of_detections(scores[-1], outcomes, truth.images))

    def prediction(
        self, sample: BaseDataElement, classes: tuple[str, ...], model: nn.Module, logits: bool
    ) -> Instances:
        instances = sample.pred_instances.cpu().numpy()
        rles = encode(instances.masks) if 'masks' in instances else None
        height, width = sample.ori_shape[:2]
        return Instances(instances.bboxes, instances.labels, instances.scores, rles, classes, (height, width))

    def tiled(
        self,
        predict: Callable[[Sequence[np.ndarray], bool], Sequence[Instances]],
        model: nn.Module,
        image: np.ndarray,
        tiling: Tiling,
    ) -> Instances:
        return predict_instances(
            lambda tiles: predict(tiles, False),
            image,
            tiling.size,
            tiling.overlap,
            tiling.batch,
            tiling.track,
        )

    def output(self, wanted: Wanted) -> DetectionOutput:
        return DetectionOutput(wanted)


def _refuse_label_options(given: DataOptions) -> None:
    if given.classes is not None:
        raise UserError('--classes is for segmentation: a COCO annotation file names its classes itself')
    if given.zero_label is not None:
        raise UserError('--zero-label is for segmentation: COCO annotations have no label 0')


def _check_classes(config: Config, rules: precision.Rules, truth: COCO) -> None:
    """Every class that a config names must be a category of the annotations."""
    present = {entry['name'] for entry in truth.cats.values()}
    lacking = [name for name in rules.classes or () if name not in present]
    if lacking:
        raise UserError(
            f'config {config.filename}: metainfo.classes: {lacking[0]!r} is not among the '
            f'{len(present)} categories of the annotations'
        )


def _images_below(root: Path) -> tuple[Path, list[str]]:
    """The image folder of the validation split, and a note if it is not there: figures need no images."""
    try:
        return coco.find_split(root, 'val').images, []
    except UserError as error:
        return root, [str(error)]
