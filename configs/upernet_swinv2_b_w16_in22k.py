# UPerNet, Swin V2-B, window 16, ImageNet-22k weights, 512x512, 160k iterations, ADE20K. The recipe of Swin-B.
#   torchrun --nproc_per_node 8 tools/train.py configs/upernet_swinv2_b_w16_in22k.py --data data/ade --launcher pytorch
# run time: not measured by us; the recipe is for 8 GPUs, 2 images each
# expected: no published score that we know of; Swin-B with ImageNet-22k weights has mIoU 0.501, single scale
_base_ = 'upernet_swinv2_b.py'
model = dict(backbone=_base_.weights.w16_in22k)
