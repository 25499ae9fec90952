# DINO, 5 scales, Swin-L, window 12, ImageNet-22k weights, 12 epochs, COCO. The recipe of mmdet.
#   torchrun --nproc_per_node 8 tools/train.py configs/dino_swin_l_w12.py --data data/coco --launcher pytorch
# run time: not measured by us; the recipe is for 8 GPUs, 2 images each
# expected: box mAP 0.572 (published for this recipe)
_base_ = 'mmdet::dino/dino-5scale_swin-l_8xb2-12e_coco.py'
model = dict(backbone=dict(type='swin_dense.SwinTransformer'))
auto_scale_lr = dict(enable=True)  # lr 0.0001 is for 8 x 2 images
