# K-Net with UPerNet, Swin-T, 512x512, 80k iterations, ADE20K. The recipe of mmseg.
#   torchrun --nproc_per_node 8 tools/train.py configs/knet_swin_t.py --data data/ade --launcher pytorch
# run time: not measured by us; the recipe is for 8 GPUs, 2 images each
# expected: mIoU 0.4584, single scale (published for this recipe)
_base_ = [
    'mmseg::knet/knet-s3_swin-t_upernet_8xb2-adamw-80k_ade20k-512x512.py',
    '_base_/swin_tiny.py',
]
model = dict(
    pretrained=None,
    backbone=dict(type='swin_dense.SwinTransformer', init_cfg=_base_.backbone.init_cfg),
)
checkpoint_file = None  # mmseg's address of the same weights, on a server that is gone
auto_scale_lr = dict(enable=True, base_batch_size=16)  # lr 6e-05 is for 8 x 2 images
