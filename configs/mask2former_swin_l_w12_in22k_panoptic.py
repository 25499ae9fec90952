# Mask2Former, Swin-L, window 12, ImageNet-22k weights, panoptic segmentation, 100 epochs, COCO. The recipe of mmdet.
#   torchrun --nproc_per_node 8 tools/train.py configs/mask2former_swin_l_w12_in22k_panoptic.py --data data/coco --launcher pytorch
# run time: not measured by us; the recipe is for 16 GPUs, 1 image each
# expected: PQ 0.576 (published for this recipe)
_base_ = 'mmdet::mask2former/mask2former_swin-l-p4-w12-384-in21k_16xb1-lsj-100e_coco-panoptic.py'
model = dict(backbone=dict(type='swin_dense.SwinTransformer'))
auto_scale_lr = dict(enable=True)  # lr 0.0001 is for 16 x 1 images
