"""mmdet's panoptic data set and loading step, without the package panopticapi, which is on no registry."""

from pathlib import Path

import numpy as np
from mmdet.datasets import CocoPanopticDataset as MMDetCocoPanopticDataset
from mmdet.datasets.api_wrappers import COCOPanoptic
from mmdet.datasets.transforms import LoadAnnotations
from mmdet.structures.mask import BitmapMasks

from swin_dense.errors import UserError
from swin_dense.formats.images import BadImageError
from swin_dense.formats.label_maps import IGNORED
from swin_dense.formats.panoptic_pngs import read_ids
from swin_dense.registry import DATASETS, TRANSFORMS


@DATASETS.register_module()
class CocoPanopticDataset(MMDetCocoPanopticDataset):
    """As mmdet's, with labels in the order of ``metainfo.classes``, things first, whatever the file's order.

    The PNG of an image is the one that its annotation names. Arguments are the host's.
    """

    def load_data_list(self) -> list[dict]:
        """A dict for each image, as mmdet's."""
        coco = COCOPanoptic(self.ann_file)
        self.coco = coco  # for parse_data_info
        ids = {category['name']: category['id'] for category in coco.cats.values()}
        self.cat_ids = [ids[name] for name in self.metainfo['classes']]
        self.cat2label = {number: label for label, number in enumerate(self.cat_ids)}
        self.cat_img_map = coco.cat_img_map
        pngs = {entry['image_id']: entry['file_name'] for entry in coco.dataset['annotations']}
        samples = []
        for number, image in coco.imgs.items():
            entry = {**image, 'img_id': number}
            segments = coco.imgToAnns.get(number, [])
            sample = self.parse_data_info({'raw_img_info': entry, 'raw_ann_info': segments})
            if self.data_prefix.get('seg'):
                sample['seg_map_path'] = str(Path(self.data_prefix['seg']) / pngs[number])
            samples.append(sample)
        del self.coco
        return samples


@TRANSFORMS.register_module()
class LoadPanopticAnnotations(LoadAnnotations):
    """As mmdet's: boxes, labels and masks of things, and the label of each pixel, 255 for none.

    Arguments are the host's.

    Raises:
        UserError: the PNG is missing or broken, or of another size than its image.
    """

    def __init__(
        self,
        with_bbox: bool = True,
        with_label: bool = True,
        with_mask: bool = True,
        with_seg: bool = True,
        box_type: str = 'hbox',
        imdecode_backend: str = 'cv2',
        backend_args: dict | None = None,
    ) -> None:
        # masks and the label map are made of the PNG
        super().__init__(
            with_mask=False,
            box_type=box_type,
            with_bbox=with_bbox,
            with_label=with_label,
            with_seg=False,
            imdecode_backend=imdecode_backend,
            backend_args=backend_args,
        )
        self.makes_masks, self.makes_labels = with_mask, with_seg

    def transform(self, results: dict) -> dict:
        """Add ``gt_bboxes``, ``gt_bboxes_labels``, ``gt_masks`` and ``gt_seg_map`` to a sample."""
        results = super().transform(results)
        if results.get('seg_map_path') is None or not (self.makes_masks or self.makes_labels):
            return results
        ids = _ids_of(results)
        if self.makes_masks:
            things = [segment['id'] for segment in results['segments_info'] if segment['is_thing']]
            masks = [(ids == number).astype(np.uint8) for number in things]
            results['gt_masks'] = BitmapMasks(masks, *ids.shape)
        if self.makes_labels:
            results['gt_seg_map'] = _labels_of(ids, results['segments_info'])
            results['ignore_index'] = IGNORED
        return results


def _ids_of(results: dict) -> np.ndarray:
    """(H, W) the segment of each pixel of a sample; errors as ``LoadPanopticAnnotations``."""
    path = results['seg_map_path']
    try:
        ids = read_ids(Path(path))
    except BadImageError as error:
        raise UserError(f'panoptic PNG {path}: {error}') from error
    height, width = results['ori_shape']
    if ids.shape != (height, width):
        raise UserError(
            f'panoptic PNG {path}: size: {ids.shape[1]} x {ids.shape[0]}, but image {results["img_path"]} is '
            f'{width} x {height}'
        )
    return ids


def _labels_of(ids: np.ndarray, segments: list[dict]) -> np.ndarray:
    """(H, W) uint8 labels of (H, W) ids; 255 where no segment is."""
    present, index = np.unique(ids, return_inverse=True)
    labels = {segment['id']: segment['category'] for segment in segments}
    table = np.array([labels.get(number, IGNORED) for number in present.tolist()], np.uint8)
    return table[index].reshape(ids.shape)
