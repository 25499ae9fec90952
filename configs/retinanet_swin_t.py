# RetinaNet, Swin-T, 1x (12 epochs), COCO. The recipe of mmdet.
#   torchrun --nproc_per_node 8 tools/train.py configs/retinanet_swin_t.py --data data/coco --launcher pytorch
# run time: not measured by us; the recipe is for 8 GPUs, 2 images each
# expected: no score is published for this recipe
_base_ = 'mmdet::swin/retinanet_swin-t-p4-w7_fpn_1x_coco.py'
model = dict(backbone=dict(type='swin_dense.SwinTransformer'))
auto_scale_lr = dict(enable=True)  # lr 0.01 is for 8 x 2 images
