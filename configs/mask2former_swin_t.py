# Mask2Former, Swin-T, instance segmentation, 50 epochs, large-scale jitter, COCO. The recipe of mmdet.
#   torchrun --nproc_per_node 8 tools/train.py configs/mask2former_swin_t.py --data data/coco --launcher pytorch
# run time: not measured by us; the recipe is for 8 GPUs, 2 images each
# expected: box mAP 0.477, mask mAP 0.447 (published for this recipe)
_base_ = 'mmdet::mask2former/mask2former_swin-t-p4-w7-224_8xb2-lsj-50e_coco.py'
model = dict(backbone=dict(type='swin_dense.SwinTransformer'))
auto_scale_lr = dict(enable=True)  # lr 0.0001 is for 8 x 2 images
