# Mask2Former, semantic segmentation, Swin-nano from scratch, the built-in shapes (or any ADE20K-style folder).
#   python -m swin_dense.demo.shapes data/shapes && python tools/train.py configs/demo/mask2former_swin_nano_semantic.py
# run time: two CPU cores, 15 minutes
# expected: not measured on the shapes yet
_base_ = ['mmseg::mask2former/mask2former_r50_8xb2-160k_ade20k-512x512.py', '../_base_/swin_nano.py']
size = (160, 160)
width = 96  # channels of the pixel decoder and the queries
classes = 6
attention = dict(embed_dims=width, num_heads=8)
ffn = dict(embed_dims=width, feedforward_channels=4 * width)
positions = dict(num_feats=width // 2)
model = dict(
    data_preprocessor=dict(size=size),
    backbone=_base_.backbone,
    decode_head=dict(
        in_channels=_base_.channels,
        feat_channels=width,
        out_channels=width,
        num_classes=classes,
        num_queries=30,
        pixel_decoder=dict(
            norm_cfg=dict(num_groups=8),
            encoder=dict(num_layers=2, layer_cfg=dict(self_attn_cfg=attention, ffn_cfg=ffn)),
            positional_encoding=positions,
        ),
        positional_encoding=positions,
        transformer_decoder=dict(
            num_layers=3, layer_cfg=dict(self_attn_cfg=attention, cross_attn_cfg=attention, ffn_cfg=ffn)
        ),
        loss_cls=dict(class_weight=[1.0] * classes + [0.1]),
        train_cfg=dict(num_points=2048),
    ),
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(3072, 768), ratio_range=(0.75, 1.25), keep_ratio=True),
    dict(type='RandomCrop', crop_size=size, cat_max_ratio=0.9),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(3072, 768), keep_ratio=True),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
dataset = dict(type='BaseSegDataset', data_root='data/shapes/ade', reduce_zero_label=True)
train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    dataset=dict(
        dataset,
        _delete_=True,
        data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    num_workers=1,
    dataset=dict(
        dataset,
        _delete_=True,
        data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
max_iters = 1500
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=max_iters)
optim_wrapper = dict(
    optimizer=dict(lr=5e-4), paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=1.0)))
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, end=50),
    dict(type='PolyLR', power=0.9, eta_min=0.0, begin=50, end=max_iters, by_epoch=False),
]
default_hooks = dict(checkpoint=dict(interval=max_iters, max_keep_ckpts=1))
auto_scale_lr = dict(enable=True, base_batch_size=4)
