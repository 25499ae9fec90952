# DINO, 5 scales, Swin-T, 12 epochs, COCO. The recipe of mmdet for Swin-L, with a smaller backbone.
#   torchrun --nproc_per_node 8 tools/train.py configs/dino_swin_t.py --data data/coco --launcher pytorch
# run time: not measured by us; the recipe is for 8 GPUs, 2 images each
# expected: no score is published for this backbone
_base_ = ['mmdet::dino/dino-5scale_swin-l_8xb2-12e_coco.py', '_base_/swin_tiny.py']
model = dict(backbone=dict(_base_.backbone, with_cp=True), neck=dict(in_channels=_base_.channels))
auto_scale_lr = dict(enable=True)  # lr 0.0001 is for 8 x 2 images
