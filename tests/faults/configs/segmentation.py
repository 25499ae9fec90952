# A UPerNet that trains an iteration in a tenth of a second, and draws random numbers wherever one can.
_base_ = ['../../../configs/demo/upernet_swin_nano.py']
size = (64, 64)
model = dict(
    data_preprocessor=dict(size=size),
    backbone=dict(
        embed_dims=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2), window_size=4, drop_path_rate=0.3
    ),
    decode_head=dict(in_channels=[8, 16, 32, 64], channels=16, dropout_ratio=0.2),
    auxiliary_head=dict(in_channels=32, channels=16),
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(512, 128), ratio_range=(0.75, 1.25), keep_ratio=True),
    dict(type='RandomCrop', crop_size=size, cat_max_ratio=0.9),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(
    batch_size=2, num_workers=0, persistent_workers=False, dataset=dict(pipeline=train_pipeline)
)
val_dataloader = dict(num_workers=0, persistent_workers=False)
test_dataloader = val_dataloader
train_cfg = dict(max_iters=12, val_interval=100, val_begin=100)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=2, max_keep_ckpts=1, save_last=True))
