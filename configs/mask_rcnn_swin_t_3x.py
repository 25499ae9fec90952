# Mask R-CNN, Swin-T, 3x (36 epochs), multi-scale crops, COCO. The recipe of mmdet's own Swin config.
#   torchrun --nproc_per_node 8 tools/train.py configs/mask_rcnn_swin_t_3x.py --data data/coco --launcher pytorch
# run time: not measured by us; the recipe is for 8 GPUs, 2 images each
# expected: box mAP 0.460, mask mAP 0.416 (published for this recipe)
_base_ = ['mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_ms-crop-3x_coco.py', '_base_/swin_tiny.py']
model = dict(backbone=_base_.backbone, neck=dict(type='swin_dense.FPN', in_channels=_base_.channels))
auto_scale_lr = dict(enable=True)  # lr 1e-4 is for 8 x 2 images; other batches scale it linearly
