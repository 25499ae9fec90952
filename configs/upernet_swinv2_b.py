# UPerNet, Swin V2-B, window 8, 512x512, 160k iterations, ADE20K. The recipe of Swin-B.
#   torchrun --nproc_per_node 8 tools/train.py configs/upernet_swinv2_b.py --data data/ade --launcher pytorch
# run time: not measured by us; the recipe is for 8 GPUs, 2 images each
# expected: no published score that we know of; Swin-B has mIoU 0.480, single scale
_base_ = [
    'mmseg::swin/swin-base-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py',
    '_base_/swinv2_base.py',
]
model = dict(
    backbone=_base_.backbone,
    decode_head=dict(type='swin_dense.UPerHead'),
)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=_base_.no_decay))
checkpoint_file = None  # the host's own weights, on a server that is gone
auto_scale_lr = dict(enable=True, base_batch_size=16)  # lr 6e-5 is for 8 x 2 images
