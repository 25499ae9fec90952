# Mask2Former, Swin-L, window 12, ImageNet-22k weights, semantic segmentation, 640x640, ADE20K. The recipe of mmseg.
#   torchrun --nproc_per_node 8 tools/train.py configs/mask2former_swin_l_w12_in22k_semantic.py --data data/ade --launcher pytorch
# run time: not measured by us; the recipe is for 8 GPUs, 2 images each
# expected: mIoU 0.5601, single scale (published for this recipe)
_base_ = [
    'mmseg::mask2former/mask2former_swin-l-in22k-384x384-pre_8xb2-160k_ade20k-640x640.py',
    '_base_/swin_large.py',
]
model = dict(backbone=dict(type='swin_dense.SwinTransformer', init_cfg=_base_.weights.w12.init_cfg))
pretrained = None  # mmseg's address of the same weights, on a server that is gone
auto_scale_lr = dict(enable=True)  # lr 0.0001 is for 8 x 2 images
