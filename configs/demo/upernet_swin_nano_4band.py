# UPerNet, Swin-nano from scratch, 16-bit TIFFs of four bands (red, green, blue, near infrared).
#   python -m swin_dense.demo.bands data/bands && python tools/train.py configs/demo/upernet_swin_nano_4band.py
# run time: two CPU cores, 6 minutes
# expected: mIoU 0.86
_base_ = './upernet_swin_nano.py'
bands = 4
model = dict(
    data_preprocessor=dict(  # python tools/check_data.py THIS_FILE --stats
        mean=[22.2702, 21.9418, 21.8205, 14.283],
        std=[9.27656, 9.27047, 9.19419, 5.90103],
        bgr_to_rgb=False,
    ),
    backbone=dict(in_channels=bands),
)
load = dict(type='swin_dense.LoadImage', channels=bands)
train_pipeline = [load, *_base_.train_pipeline[1:]]
test_pipeline = [load, *_base_.test_pipeline[1:]]
dataset = dict(data_root='data/bands', img_suffix='.tif')
train_dataloader = dict(dataset=dict(dataset, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(dataset, pipeline=test_pipeline))
test_dataloader = val_dataloader
