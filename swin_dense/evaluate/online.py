"""The hosts' metrics in a run, where they fall short: NaN, counts above 2^24, annotation 0, no detections."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from mmdet.evaluation import CocoMetric as MMDetCocoMetric
from mmengine.config import Config
from mmseg.evaluation import IoUMetric as MMSegIoUMetric

from swin_dense.console.terminal import say
from swin_dense.data.coco_dataset import leave_out_repeats
from swin_dense.data.fields import evaluators
from swin_dense.errors import NotFiniteError
from swin_dense.evaluate.coco import SCORES, Rules, complete, score_entries
from swin_dense.evaluate.label_folder import LabelFolder
from swin_dense.formats.coco_results import FIELDS
from swin_dense.formats.label_maps import IGNORED
from swin_dense.registry import METRICS
from swin_dense.storage import atomic, folders

# where each writes its predictions; those of COCO add .bbox.json, .segm.json, .panoptic.json
OUTPUTS = {'CocoPanopticMetric': 'outfile_prefix', 'CocoMetric': 'outfile_prefix', 'IoUMetric': 'output_dir'}
NAME = 'predictions'  # of what they leave in a work directory


@METRICS.register_module()
class CocoMetric(MMDetCocoMetric):
    """mmdet's CocoMetric, with correct results for the files and predictions where the host's are wrong."""

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Refuse NaN and infinity, of which pycocotools makes an AP of 1."""
        for sample in data_samples:
            for name in ('bboxes', 'scores'):
                if not torch.isfinite(sample['pred_instances'][name]).all():
                    raise NotFiniteError(
                        f'predictions of image {sample["img_id"]} ({sample.get("img_path", "")}): '
                        f'{name} are NaN or infinite: no AP'
                    )
        super().process(data_batch, data_samples)

    def results2json(self, results: Sequence[dict], outfile_prefix: str) -> dict[str, str]:
        """Write the files, whole or not at all; masks that another model left there are not this one's.

        Raises:
            DiskFullError: there is no space; the files of an earlier evaluation are intact.
            UserError: they cannot be written for another reason.
        """
        scratch = Path(f'{outfile_prefix}{atomic.PARTIAL}')
        written, places = {}, {}
        try:
            written = super().results2json(results, str(scratch / 'new'))
            places = {kind: f'{outfile_prefix}{Path(new).name[3:]}' for kind, new in written.items()}
            for new, place in {written[kind]: place for kind, place in places.items()}.items():
                with atomic.replacing(Path(place)) as partial:
                    Path(new).replace(partial)
            if 'segm' not in written:
                Path(f'{outfile_prefix}.segm.json').unlink(missing_ok=True)
        except OSError as error:
            raise folders.as_user_error(error, Path(f'{outfile_prefix}.bbox.json')) from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return places

    def compute_metrics(self, results: list) -> dict[str, float]:
        """The scores, with corrected annotations. Without any detection they are 0."""
        if self._coco_api is not None:
            leave_out_repeats(self._coco_api)
            complete(self._coco_api)
        metrics = super().compute_metrics(results)
        if metrics or self.format_only or self._coco_api is None:
            return metrics
        say('no detections at all: every AP is 0')
        rules = Rules(limits=tuple(self.proposal_nums), classes=tuple(self.dataset_meta['classes']))
        kinds = [kind for kind in self.metrics if kind in FIELDS]
        scores = [score_entries(self._coco_api, kind, [], rules).metrics() for kind in kinds]
        # mmdet reports the six AP of each kind
        reported = tuple(f'_{item}' for item in SCORES[:6])
        return {k: value for kind in scores for k, value in kind.items() if k.endswith(reported)}


@METRICS.register_module()
class IoUMetric(MMSegIoUMetric):
    """mmseg's, with exact counts: its float32 sums lose pixels above 2^24.

    The label maps in ``output_dir`` are those of one evaluation, all of them, and two images of one stem in
    two folders have a map each: see ``label_folder``. Arguments are the host's.
    """

    def __init__(
        self,
        ignore_index: int = IGNORED,
        iou_metrics: Sequence[str] = ('mIoU',),
        nan_to_num: int | None = None,
        beta: int = 1,
        collect_device: str = 'cpu',
        output_dir: str | None = None,
        format_only: bool = False,
        prefix: str | None = None,
    ) -> None:
        names = list(iou_metrics)
        # without the folder: the host makes it at once, before there is anything to be in it
        super().__init__(ignore_index, names, nan_to_num, beta, collect_device, None, format_only, prefix)
        self.output_dir: str | None
        self._folder = None if output_dir is None else LabelFolder(Path(output_dir))

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Count the pixels, and write the label maps.

        Raises:
            DiskFullError: there is no space; the label maps of an earlier evaluation are intact.
            UserError: a map cannot be written for another reason.
        """
        super().process(data_batch, data_samples)
        if self._folder is None:
            return
        for sample in data_samples:
            labels = sample['pred_sem_seg']['data'].squeeze().cpu().numpy()
            # in the numbers of the training data's files, where 0 is unlabelled
            first = int(sample.get('reduce_zero_label', False))
            self._folder.add(sample['img_path'], (labels + first).astype(np.uint8))

    def evaluate(self, size: int) -> dict[str, float]:
        """Put the label maps in their place, and compute the metrics; errors as ``process``."""
        if self._folder is not None:
            self.output_dir = str(self._folder.path)  # for what the host logs of it
            self._folder.finish()
        try:
            return super().evaluate(size)
        finally:
            self.output_dir = None

    @staticmethod
    def intersect_and_union(
        pred_label: torch.Tensor, label: torch.Tensor, num_classes: int, ignore_index: int
    ) -> tuple[torch.Tensor, ...]:
        """(C,) intersection, union, predicted and labelled pixels; float64, exact up to 2^53."""
        kept = label != ignore_index
        predicted, label = pred_label[kept], label[kept]
        maps = (predicted[predicted == label], predicted, label)
        # values that are no class count for none, as in the host's histogram
        hits, predicted_pixels, real = (
            torch.bincount(m[m >= 0], minlength=num_classes)[:num_classes].cpu().double() for m in maps
        )
        return hits, predicted_pixels + real - hits, predicted_pixels, real


def keep_predictions(config: Config, folder: Path) -> None:
    """Have the evaluators leave their predictions in ``folder``, and count with our metrics.

    ``predictions.bbox.json`` and ``predictions.segm.json``, or PNG label maps in ``predictions/``.
    """
    for metric, scope, kind in _written(config, 'val_evaluator', 'test_evaluator'):
        metric.setdefault(OUTPUTS[kind], str(folder / NAME))
        if scope in ('', 'mmdet', 'mmseg'):
            metric['type'] = f'swin_dense.{kind}'


def move_predictions(config: Config, before: Path, folder: Path) -> None:
    """Have the evaluators that write to the folder ``before`` write to another one."""
    for metric, _, kind in _written(config, 'val_evaluator', 'test_evaluator'):
        if metric[OUTPUTS[kind]] == str(before / NAME):
            metric[OUTPUTS[kind]] = str(folder / NAME)


def output(config: Config) -> Path | None:
    """Where the test evaluator writes: a prefix of file names, or a folder. None if it has no such metric."""
    written = (Path(metric[OUTPUTS[kind]]) for metric, _, kind in _written(config, 'test_evaluator'))
    return next(written, None)


def _written(config: Config, *names: str) -> Iterator[tuple[dict, str, str]]:
    """The metrics that leave predictions, each with the scope and the name of its type."""
    for name in names:
        for metric in evaluators(config, name):
            scope, _, kind = str(metric['type']).rpartition('.')
            if kind in OUTPUTS:
                yield metric, scope, kind
