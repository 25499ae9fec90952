# Mask R-CNN, Swin V2-T, window 8, 3x (36 epochs), multi-scale crops, COCO. The recipe of Swin-T.
#   torchrun --nproc_per_node 8 tools/train.py configs/mask_rcnn_swinv2_t.py --data data/coco --launcher pytorch
# run time: not measured by us; the recipe is for 8 GPUs, 2 images each
# expected: no published score that we know of; Swin-T has box mAP 0.460, mask mAP 0.416
_base_ = ['mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_ms-crop-3x_coco.py', '_base_/swinv2_tiny.py']
model = dict(backbone=_base_.backbone, neck=dict(type='swin_dense.FPN', in_channels=_base_.channels))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=_base_.no_decay))
auto_scale_lr = dict(enable=True)  # lr 1e-4 is for 8 x 2 images; other batches scale it linearly
