# Mask2Former, Swin-S, semantic segmentation, 512x512, 160k iterations, ADE20K. The recipe of mmseg.
#   torchrun --nproc_per_node 8 tools/train.py configs/mask2former_swin_s_semantic.py --data data/ade --launcher pytorch
# run time: not measured by us; the recipe is for 8 GPUs, 2 images each
# expected: mIoU 0.5124, single scale (published for this recipe)
_base_ = [
    'mmseg::mask2former/mask2former_swin-s_8xb2-160k_ade20k-512x512.py',
    '_base_/swin_small.py',
]
model = dict(backbone=dict(type='swin_dense.SwinTransformer', init_cfg=_base_.backbone.init_cfg))
pretrained = None  # mmseg's address of the same weights, on a server that is gone
auto_scale_lr = dict(enable=True)  # lr 0.0001 is for 8 x 2 images
