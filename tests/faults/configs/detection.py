# A Mask R-CNN that trains an iteration in a tenth of a second, and draws random numbers wherever one can.
_base_ = ['../../../configs/demo/mask_rcnn_swin_nano.py']
width = 16
norm = dict(type='GN', num_groups=4)
model = dict(
    backbone=dict(
        embed_dims=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2), window_size=4, drop_path_rate=0.3
    ),
    neck=dict(in_channels=[8, 16, 32, 64], out_channels=width, norm_cfg=norm),
    rpn_head=dict(in_channels=width, feat_channels=width),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=width),
        bbox_head=dict(in_channels=width, fc_out_channels=32),
        mask_roi_extractor=dict(out_channels=width),
        mask_head=dict(num_convs=1, in_channels=width, conv_out_channels=width, norm_cfg=norm),
    ),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=50, max_per_img=30), rcnn=dict(sampler=dict(num=16, pos_fraction=0.5))
    ),
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomResize', scale=(128, 128), ratio_range=(0.8, 1.2), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(64, 64), allow_negative_crop=True),
    dict(type='RandomFlip', prob=[0.3, 0.3], direction=['horizontal', 'vertical']),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(
    batch_size=1, num_workers=0, persistent_workers=False, dataset=dict(pipeline=train_pipeline)
)
val_dataloader = dict(num_workers=0, persistent_workers=False)
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=3, val_interval=100, val_begin=100)  # of 4 images, one an iteration
default_hooks = dict(
    logger=dict(interval=1), checkpoint=dict(by_epoch=False, interval=2, max_keep_ckpts=1, save_last=True)
)
