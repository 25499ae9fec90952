# Mask R-CNN, Swin-S, 3x (36 epochs), multi-scale crops, COCO. The recipe of mmdet's own Swin config, which adds --amp fp16.
#   torchrun --nproc_per_node 8 tools/train.py configs/mask_rcnn_swin_s.py --data data/coco --launcher pytorch
# run time: not measured by us; the recipe is for 8 GPUs, 2 images each
# expected: box mAP 0.482, mask mAP 0.432 (published for this recipe in fp16; 0.485 and 0.433 by Microsoft)
_base_ = ['mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_ms-crop-3x_coco.py', '_base_/swin_small.py']
model = dict(backbone=_base_.backbone, neck=dict(type='swin_dense.FPN', in_channels=_base_.channels))
auto_scale_lr = dict(enable=True)  # lr 1e-4 is for 8 x 2 images; other batches scale it linearly
