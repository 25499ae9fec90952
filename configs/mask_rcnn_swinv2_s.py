# Mask R-CNN, Swin V2-S, window 8, 3x (36 epochs), multi-scale crops, COCO. The recipe of Swin-S.
#   torchrun --nproc_per_node 8 tools/train.py configs/mask_rcnn_swinv2_s.py --data data/coco --launcher pytorch
# run time: not measured by us; the recipe is for 8 GPUs, 2 images each
# expected: no published score that we know of; Swin-S has box mAP 0.485, mask mAP 0.433
_base_ = ['mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_ms-crop-3x_coco.py', '_base_/swinv2_small.py']
model = dict(backbone=_base_.backbone, neck=dict(type='swin_dense.FPN', in_channels=_base_.channels))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=_base_.no_decay))
auto_scale_lr = dict(enable=True)  # lr 1e-4 is for 8 x 2 images; other batches scale it linearly
