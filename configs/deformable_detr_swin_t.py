# Deformable DETR, Swin-T, 50 epochs, COCO. The recipe of mmdet for ResNet-50, with our backbone.
#   torchrun --nproc_per_node 8 tools/train.py configs/deformable_detr_swin_t.py --data data/coco --launcher pytorch
# run time: not measured by us; the recipe is for 16 GPUs, 2 images each
# expected: no score is published for this backbone
_base_ = ['mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py', '_base_/swin_tiny.py']
model = dict(
    backbone=dict(_base_.backbone, out_indices=(1, 2, 3)),
    neck=dict(in_channels=_base_.channels[1:]),
)
auto_scale_lr = dict(enable=True)  # lr 0.0002 is for 16 x 2 images
