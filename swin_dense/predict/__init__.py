"""From a checkpoint to predictions: on arrays, files, folders, videos and images larger than memory for them.

from swin_dense.predict import Predictor

result = Predictor('epoch_12.pth')('image.jpg')
"""

from swin_dense import hosts

hosts.prepare()  # the hosts cannot be imported before this

from swin_dense.formats.predictions import Instances, LabelMap  # noqa: E402
from swin_dense.predict.predictor import Predictor  # noqa: E402

__all__ = ['Instances', 'LabelMap', 'Predictor']
