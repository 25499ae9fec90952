# Detection with Mosaic and MixUp, which draw further images.
_base_ = ['detection.py']
loading = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=False),
]
mixing = [
    dict(type='Mosaic', img_scale=(64, 64), pad_val=114.0),
    dict(type='RandomAffine', scaling_ratio_range=(0.5, 1.5), border=(-32, -32)),
    dict(type='MixUp', img_scale=(64, 64), ratio_range=(0.8, 1.6), pad_val=114.0),
    dict(type='PhotoMetricDistortion'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
inner = _base_.train_dataloader.dataset
inner.pipeline = loading
model = dict(roi_head=dict(mask_roi_extractor=None, mask_head=None))
train_dataloader = dict(
    dataset=dict(_delete_=True, type='MultiImageMixDataset', dataset=inner, pipeline=mixing)
)
