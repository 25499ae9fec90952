"""The prediction for one image: instances, a label map, or the segments of a panoptic map."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
from pycocotools import mask as mask_api

from swin_dense.formats.label_maps import IGNORED

INSTANCE_OFFSET = 1000  # mmdet's, between the instances of a class in a panoptic map


@dataclass(frozen=True)
class Instances:
    """The objects predicted for one image, in its pixels.

    Attributes:
        boxes: (N, 4) float32: x1, y1, x2, y2.
        labels: (N,) int64, indices into ``classes``.
        scores: (N,) float32 from 0 to 1.
        rles: N masks of the whole image as pycocotools' compressed RLE; None of a model without masks.
        classes: names.
        shape: (H, W) of the image.
    """

    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    rles: Sequence[dict] | None
    classes: tuple[str, ...]
    shape: tuple[int, int]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def masks(self) -> np.ndarray | None:
        """(N, H, W) bool, decoded at each access; None of a model without masks."""
        if self.rles is None:
            return None
        if not self.rles:
            return np.zeros((0, *self.shape), bool)
        return mask_api.decode(list(self.rles)).transpose(2, 0, 1).astype(bool)

    def take(self, indices: np.ndarray) -> 'Instances':
        """The instances at ``indices``, (K,) integers or (N,) bool, in that order."""
        indices = np.arange(len(self))[indices]
        rles = None if self.rles is None else [self.rles[i] for i in indices]
        return replace(
            self,
            boxes=self.boxes[indices],
            labels=self.labels[indices],
            scores=self.scores[indices],
            rles=rles,
        )

    def above(self, score: float) -> 'Instances':
        """The instances with at least this score."""
        return self.take(self.scores >= score)

    def only(self, labels: Collection[int]) -> 'Instances':
        """The instances of these classes."""
        return self.take(np.isin(self.labels, list(labels)))

    def crop(self, height: int, width: int) -> 'Instances':
        """All of them, in the top left part of the image."""
        boxes = self.boxes.clip(0, np.array([width, height] * 2, np.float32))
        rles = None if self.masks is None else encode(self.masks[:, :height, :width])
        return replace(self, boxes=boxes, rles=rles, shape=(height, width))


@dataclass(frozen=True)
class LabelMap:
    """The class of each pixel of one image.

    Attributes:
        label_map: (H, W) uint8, or uint16 for more than 255 classes: indices into ``classes``; 255 (65535)
            where the class is none of those asked for.
        classes: names.
        logits: (C, H, W) float32 before softmax (or sigmoid, if C is 1), where they were asked for.
    """

    label_map: np.ndarray
    classes: tuple[str, ...]
    logits: np.ndarray | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) of the image."""
        return self.label_map.shape

    def crop(self, height: int, width: int) -> 'LabelMap':
        """The top left part."""
        logits = None if self.logits is None else self.logits[:, :height, :width]
        return replace(self, label_map=self.label_map[:height, :width], logits=logits)

    def only(self, labels: Collection[int]) -> 'LabelMap':
        """The same with every other class made unlabelled."""
        kept = self.label_map.copy()
        kept[~np.isin(kept, np.array(list(labels), kept.dtype))] = np.iinfo(kept.dtype).max
        return replace(self, label_map=kept)


@dataclass(frozen=True)
class PanopticMap:
    """The segments of one image: a pixel belongs to one at most.

    Attributes:
        ids: (H, W) int32: the segment of each pixel, from 1 to N, and 0 for none.
        labels: (N,) int64: the class of segment 1, 2, ...; indices into ``classes``.
        classes: names, those of things first.
        things: how many of them are things.
    """

    ids: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    things: int

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) of the image."""
        return self.ids.shape

    def crop(self, height: int, width: int) -> 'PanopticMap':
        """The top left part, with the segments that have pixels in it."""
        cut = replace(self, ids=self.ids[:height, :width])
        return cut.take(np.isin(np.arange(1, len(self.labels) + 1), cut.ids))

    def only(self, labels: Collection[int]) -> 'PanopticMap':
        """The segments of these classes."""
        return self.take(np.isin(self.labels, list(labels)))

    def take(self, kept: np.ndarray) -> 'PanopticMap':
        """Some of the segments, (N,) bool; the pixels of the others belong to none."""
        numbers = np.concatenate([[0], np.where(kept, np.cumsum(kept), 0)]).astype(self.ids.dtype)
        return replace(self, ids=numbers[self.ids], labels=self.labels[kept])


Predicted = Instances | LabelMap | PanopticMap


def panoptic_map(
    values: np.ndarray, classes: tuple[str, ...], things: int, ignored: int | None = None
) -> PanopticMap:
    """The segments of a map as mmdet's fusion heads return it.

    Args:
        values: (H, W) label + 1000 * instance; the label ``len(classes)`` means none.
        classes, things: as of ``PanopticMap``.
        ignored: another label that means none.
    """
    present, index = np.unique(values, return_inverse=True)
    labels = (present % INSTANCE_OFFSET).astype(np.int64)
    kept = (labels < len(classes)) & (labels != ignored)
    numbers = np.where(kept, np.cumsum(kept), 0).astype(np.int32)
    return PanopticMap(numbers[index].reshape(values.shape), labels[kept], classes, things)


def encode(masks: np.ndarray) -> list[dict]:
    """RLE of (N, H, W) bool masks, one at a time: together they would be copied as a whole."""
    return [mask_api.encode(np.asfortranarray(mask, np.uint8)) for mask in masks]


def label_type(classes: int) -> type[np.unsignedinteger]:
    """The integers of a label map: bytes where the highest is free for what has no label."""
    return np.uint8 if classes <= IGNORED else np.uint16
