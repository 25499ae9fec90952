# Mask2Former, Swin-B, window 12, panoptic segmentation, 50 epochs, large-scale jitter, COCO. The recipe of mmdet.
#   torchrun --nproc_per_node 8 tools/train.py configs/mask2former_swin_b_w12_panoptic.py --data data/coco --launcher pytorch
# run time: not measured by us; the recipe is for 8 GPUs, 2 images each
# expected: PQ 0.551 (published for this recipe)
_base_ = 'mmdet::mask2former/mask2former_swin-b-p4-w12-384_8xb2-lsj-50e_coco-panoptic.py'
model = dict(backbone=dict(type='swin_dense.SwinTransformer'))
auto_scale_lr = dict(enable=True)  # lr 0.0001 is for 8 x 2 images
