# MaskFormer, Swin-L, window 12, ImageNet-22k weights, panoptic segmentation, 300 epochs, COCO. The recipe of mmdet.
#   torchrun --nproc_per_node 8 tools/train.py configs/maskformer_swin_l_w12_panoptic.py --data data/coco --launcher pytorch
# run time: not measured by us; the recipe is for 64 GPUs, 1 image each
# expected: PQ 0.532 (published for this recipe)
_base_ = 'mmdet::maskformer/maskformer_swin-l-p4-w12_64xb1-ms-300e_coco.py'
model = dict(backbone=dict(type='swin_dense.SwinTransformer'))
auto_scale_lr = dict(enable=True)  # lr 6e-05 is for 64 x 1 images
