# Mask2Former, Swin-S, panoptic segmentation, 50 epochs, large-scale jitter, COCO. The recipe of mmdet.
#   torchrun --nproc_per_node 8 tools/train.py configs/mask2former_swin_s_panoptic.py --data data/coco --launcher pytorch
# run time: not measured by us; the recipe is for 8 GPUs, 2 images each
# expected: PQ 0.545 (published for this recipe)
_base_ = 'mmdet::mask2former/mask2former_swin-s-p4-w7-224_8xb2-lsj-50e_coco-panoptic.py'
model = dict(backbone=dict(type='swin_dense.SwinTransformer'))
auto_scale_lr = dict(enable=True)  # lr 0.0001 is for 8 x 2 images
