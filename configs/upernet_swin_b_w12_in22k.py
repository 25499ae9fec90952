# UPerNet, Swin-B, window 12, ImageNet-22k weights of 384x384, 512x512, 160k iterations, ADE20K. The recipe of mmseg's own Swin config.
#   torchrun --nproc_per_node 8 tools/train.py configs/upernet_swin_b_w12_in22k.py --data data/ade --launcher pytorch
# run time: not measured by us; the recipe is for 8 GPUs, 2 images each
# expected: mIoU 0.508, single scale (published for this recipe)
_base_ = 'upernet_swin_b.py'
model = dict(backbone=_base_.weights.w12_in22k)
