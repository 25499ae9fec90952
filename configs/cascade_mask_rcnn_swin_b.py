# Cascade Mask R-CNN, Swin-B, 3x (36 epochs), multi-scale crops, COCO. The recipe of Swin's authors.
#   torchrun --nproc_per_node 8 tools/train.py configs/cascade_mask_rcnn_swin_b.py --data data/coco --launcher pytorch
# run time: not measured by us; the recipe is for 8 GPUs, 2 images each
# expected: box mAP 0.519, mask mAP 0.450 (published for this recipe in fp16, --amp fp16)
_base_ = ['_base_/cascade_mask_rcnn_3x.py', '_base_/swin_base.py']
model = dict(backbone=_base_.backbone, neck=dict(in_channels=_base_.channels))
