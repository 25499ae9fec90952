# Panoptic FPN, Swin-nano from scratch, the built-in shapes (or any small COCO-panoptic folder with --data).
#   python -m swin_dense.demo.shapes data/shapes && python tools/train.py configs/demo/panoptic_fpn_swin_nano.py
# run time: two CPU cores, 4 minutes
# expected: PQ 0.82
_base_ = './mask_rcnn_swin_nano.py'
width = _base_.width  # channels of the pyramid and of every head
model = dict(
    type='PanopticFPN',
    data_preprocessor=dict(pad_seg=True, seg_pad_value=255),
    semantic_head=dict(
        type='PanopticFPNHead',
        num_things_classes=5,
        num_stuff_classes=1,
        in_channels=width,
        inner_channels=width,
        start_level=0,
        end_level=4,
        norm_cfg=_base_.norm,
        loss_seg=dict(type='CrossEntropyLoss', ignore_index=255, loss_weight=0.5),
    ),
    panoptic_fusion_head=dict(type='HeuristicFusionHead', num_things_classes=5, num_stuff_classes=1),
    test_cfg=dict(
        # a segment is drawn once: only what is likely, and no class over another
        rcnn=dict(score_thr=0.6, nms=dict(iou_threshold=0.5, class_agnostic=True), max_per_img=100),
        panoptic=dict(mask_overlap=0.5, stuff_area_limit=256),
    ),
)
train_pipeline = _base_.train_pipeline
train_pipeline[1] = dict(type='LoadPanopticAnnotations')
test_pipeline = _base_.test_pipeline
test_pipeline[2] = dict(type='LoadPanopticAnnotations')
data_root = 'data/shapes/panoptic/'
train_dataloader = dict(
    dataset=dict(
        type='CocoPanopticDataset',
        data_root=data_root,
        ann_file='annotations/panoptic_train2017.json',
        data_prefix=dict(seg='annotations/panoptic_train2017/'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    dataset=dict(
        type='CocoPanopticDataset',
        data_root=data_root,
        ann_file='annotations/panoptic_val2017.json',
        data_prefix=dict(seg='annotations/panoptic_val2017/'),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(
    _delete_=True,
    type='CocoPanopticMetric',
    ann_file=data_root + 'annotations/panoptic_val2017.json',
    seg_prefix=data_root + 'annotations/panoptic_val2017/',
)
test_evaluator = val_evaluator
