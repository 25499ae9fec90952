"""The ground truth and the prediction in the hosts' data samples."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample

from swin_dense.tasks.detection import Detection
from swin_dense.tasks.segmentation import Segmentation

HEIGHT, WIDTH = 60, 90


@pytest.mark.parametrize('boxes', [torch.tensor, HorizontalBoxes], ids=['tensor', 'HorizontalBoxes'])
@pytest.mark.parametrize('masks', [True, False], ids=['masks', 'boxes alone'])
def test_what_a_detection_says(boxes: type, masks: bool):
    sample = DetDataSample(metainfo=dict(img_path='a/1.jpg'))
    corners = [[1.0, 2.0, 10.0, 12.0], [3.0, 4.0, 20.0, 24.0]]
    sample.gt_instances = InstanceData(bboxes=boxes(corners), labels=torch.tensor([1, 0]))
    sample.pred_instances = InstanceData(
        bboxes=torch.tensor(corners), labels=torch.tensor([1, 2]), scores=torch.tensor([0.9, 0.1])
    )
    if masks:
        sample.gt_instances.masks = BitmapMasks(np.ones((2, HEIGHT, WIDTH), np.uint8), HEIGHT, WIDTH)
        sample.pred_instances.masks = torch.zeros(2, HEIGHT, WIDTH, dtype=torch.bool)
    found = Detection().pair(sample)
    assert found.image == Path('a/1.jpg')
    assert found.truth.boxes.tolist() == corners
    assert found.truth.labels.tolist() == [1, 0]
    assert found.truth.scores is None
    assert found.prediction.labels.tolist() == [1], 'what has a low score is not drawn'
    assert found.prediction.boxes.tolist() == corners[:1]
    if masks:
        assert found.truth.masks.shape == (2, HEIGHT, WIDTH)
        assert found.truth.masks.dtype == found.prediction.masks.dtype == bool
        assert found.prediction.masks.shape == (1, HEIGHT, WIDTH)
    else:
        assert found.truth.masks is found.prediction.masks is None


def test_what_a_segmentation_says():
    sample = SegDataSample(metainfo=dict(img_path='a/1.jpg'))
    truth, prediction = (torch.randint(0, 3, (1, HEIGHT, WIDTH)) for _ in range(2))
    sample.gt_sem_seg, sample.pred_sem_seg = PixelData(data=truth), PixelData(data=prediction)
    found = Segmentation().pair(sample)
    assert np.array_equal(found.truth.label_map, truth[0].numpy())
    assert np.array_equal(found.prediction.label_map, prediction[0].numpy())


def test_the_truth_of_packed_samples():
    """As a training pipeline packs them, without predictions."""
    sample = DetDataSample(metainfo=dict(img_path='a.png'))
    sample.gt_instances = InstanceData(
        bboxes=HorizontalBoxes([[1.0, 2, 3, 4]]),
        labels=torch.tensor([2]),
        masks=BitmapMasks(np.ones((1, 8, 9), np.uint8), 8, 9),
    )
    found = Detection().truth(sample)
    assert (found.labels.tolist(), found.boxes.tolist()) == ([2], [[1, 2, 3, 4]])
    assert found.masks.shape == (1, 8, 9)
    assert found.masks.dtype == bool
    labels = torch.randint(0, 3, (1, 8, 9))
    segmented = SegDataSample(gt_sem_seg=PixelData(data=labels))
    assert np.array_equal(Segmentation().truth(segmented).label_map, labels[0].numpy())
