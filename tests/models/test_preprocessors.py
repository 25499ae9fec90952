"""N channels in the hosts' preprocessors."""

import numpy as np
import pytest
import torch
from mmdet.models.data_preprocessors import DetDataPreprocessor as MMDetDataPreprocessor
from mmdet.registry import MODELS as MMDET_MODELS
from mmdet.structures import DetDataSample
from mmseg.models import SegDataPreProcessor
from mmseg.structures import SegDataSample

from swin_dense.errors import UserError
from swin_dense.models import DetDataPreprocessor

MEAN, STD = (10.0, 20.0, 30.0, 40.0, 50.0), (1.0, 2.0, 3.0, 4.0, 5.0)
SIZES = [(20, 30), (24, 17)]


def batch(channels: int, sample: type) -> dict:
    images = [torch.rand(channels, *size) * 255 for size in SIZES]
    samples = [sample(metainfo=dict(img_shape=size)) for size in SIZES]
    return dict(inputs=images, data_samples=samples)


def test_mmdet_asserts_one_or_three_channels():
    """Why there is one of ours."""
    with pytest.raises(AssertionError):
        MMDetDataPreprocessor(mean=MEAN, std=STD)


def test_five_channels_in_mmdet():
    data = batch(5, DetDataSample)
    settings = dict(mean=MEAN, std=STD, pad_size_divisor=32, pad_value=7)
    preprocessor = MMDET_MODELS.build(dict(type='swin_dense.DetDataPreprocessor', **settings))
    assert type(preprocessor) is DetDataPreprocessor
    result = preprocessor(data, training=True)
    assert result['inputs'].shape == (2, 5, 32, 32)
    for image, normalised, (height, width) in zip(data['inputs'], result['inputs'], SIZES, strict=True):
        expected = (image.numpy() - np.reshape(MEAN, (5, 1, 1))) / np.reshape(STD, (5, 1, 1))
        np.testing.assert_allclose(normalised[:, :height, :width], expected, rtol=1e-5, atol=1e-5)
        assert (normalised[:, height:] == 7).all()
        assert (normalised[:, :, width:] == 7).all()
    assert result['data_samples'][0].batch_input_shape == (32, 32)


@pytest.mark.parametrize('training', [True, False])
def test_three_channels_are_mmdets(training: bool):
    settings = dict(mean=MEAN[:3], std=STD[:3], bgr_to_rgb=True, pad_size_divisor=8)
    data = batch(3, DetDataSample)
    result, expected = (
        kind(**settings)(data, training) for kind in (DetDataPreprocessor, MMDetDataPreprocessor)
    )
    assert torch.equal(result['inputs'], expected['inputs'])


def test_five_channels_in_mmseg():
    data = batch(5, SegDataSample)
    data['inputs'] = [image[:, :17, :17] for image in data['inputs']]
    result = SegDataPreProcessor(mean=MEAN, std=STD, bgr_to_rgb=True)(data, training=False)['inputs']
    expected = (torch.stack(data['inputs']) - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[
        :, None, None
    ]
    torch.testing.assert_close(result, expected)


def test_what_does_not_fit_is_refused():
    with pytest.raises(UserError, match='5 values of mean, but 4 of std'):
        DetDataPreprocessor(MEAN, STD[:4])
    with pytest.raises(UserError, match='bgr_to_rgb and rgb_to_bgr are for 3 channels, and mean has 5'):
        DetDataPreprocessor(MEAN, STD, bgr_to_rgb=True)
    with pytest.raises(UserError, match='mean has 5 values, images 3 channels'):
        DetDataPreprocessor(MEAN, STD)(batch(3, DetDataSample))
