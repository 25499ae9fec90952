"""mmdet's COCO data set, for files with categories that repeat a name."""

import io
from contextlib import redirect_stdout

from mmdet.datasets import CocoDataset as MMDetCocoDataset
from mmdet.datasets.api_wrappers import COCO

from swin_dense.formats.coco_json import unused_repeats
from swin_dense.registry import DATASETS


class _WithoutRepeats(COCO):
    """The annotations of a file, less the categories that ``coco_json.read_annotations`` leaves out."""

    def __init__(self, annotation_file: str) -> None:
        super().__init__(annotation_file)
        leave_out_repeats(self)


@DATASETS.register_module()
class CocoDataset(MMDetCocoDataset):
    """As mmdet's, which gives each category of a name a label of its own. Arguments are the host's."""

    COCOAPI = _WithoutRepeats


def leave_out_repeats(api: COCO) -> None:
    """Remove the categories without an annotation that repeat a name, in place; the index is built anew."""
    used = {annotation['category_id'] for annotation in api.dataset.get('annotations') or ()}
    repeats = {category['id'] for category in unused_repeats(api.dataset['categories'], used)}
    if repeats:
        kept = [category for category in api.dataset['categories'] if category['id'] not in repeats]
        api.dataset['categories'] = kept
        with redirect_stdout(io.StringIO()):
            api.createIndex()
