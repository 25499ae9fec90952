# RTMDet-l, Swin-B, window 12, ImageNet-22k weights, 100 epochs, COCO. The recipe of mmdet.
#   torchrun --nproc_per_node 4 tools/train.py configs/rtmdet_swin_b_w12.py --data data/coco --launcher pytorch
# run time: not measured by us; the recipe is for 4 GPUs, 32 images each
# expected: box mAP 0.524 (published for this recipe)
_base_ = 'mmdet::rtmdet/rtmdet_l_swin_b_4xb32-100e_coco.py'
model = dict(backbone=dict(type='swin_dense.SwinTransformer'))
auto_scale_lr = dict(enable=True, base_batch_size=128)  # lr 0.001 is for 4 x 32 images
