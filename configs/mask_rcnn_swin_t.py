# Mask R-CNN, Swin-T, 1x (12 epochs), COCO. The recipe of mmdet's own Swin config.
#   torchrun --nproc_per_node 8 tools/train.py configs/mask_rcnn_swin_t.py --data data/coco --launcher pytorch
# run time: not measured by us; the recipe is for 8 GPUs, 2 images each
# expected: box mAP 0.427, mask mAP 0.393 (published for this recipe)
_base_ = ['mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py', '_base_/swin_tiny.py']
model = dict(backbone=_base_.backbone, neck=dict(type='swin_dense.FPN', in_channels=_base_.channels))
auto_scale_lr = dict(enable=True)  # lr 1e-4 is for 8 x 2 images; other batches scale it linearly
