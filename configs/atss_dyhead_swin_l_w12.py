# ATSS with DyHead, Swin-L, window 12, ImageNet-22k weights, 2x (24 epochs), multi-scale, COCO. The recipe of mmdet.
#   torchrun --nproc_per_node 8 tools/train.py configs/atss_dyhead_swin_l_w12.py --data data/coco --launcher pytorch
# run time: not measured by us; the recipe is for 8 GPUs, 2 images each
# expected: box mAP 0.562 (published for this recipe)
_base_ = 'mmdet::dyhead/atss_swin-l-p4-w12_fpn_dyhead_ms-2x_coco.py'
model = dict(backbone=dict(type='swin_dense.SwinTransformer'))
auto_scale_lr = dict(enable=True)  # lr 5e-05 is for 8 x 2 images
