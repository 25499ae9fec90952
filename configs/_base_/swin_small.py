# Swin-S, window 7, ImageNet-1k weights from Microsoft's release. Used like swin_tiny.py.
channels = [96, 192, 384, 768]  # C2..C5: embed_dims * (1, 2, 4, 8)
backbone = dict(
    _delete_=True,  # nothing of the host's backbone may leak in
    type='swin_dense.SwinTransformer',
    embed_dims=96,
    depths=(2, 2, 18, 2),
    num_heads=(3, 6, 12, 24),
    window_size=7,
    drop_path_rate=0.2,
    init_cfg=dict(
        type='swin_dense.Pretrained',
        checkpoint='https://github.com/SwinTransformer/storage/releases/download/v1.0.0/swin_small_patch4_window7_224.pth',
    ),
)
# other weights of the release: backbone=dict(_base_.backbone, **_base_.weights.in22k)
weights = dict(
    in22k=dict(
        init_cfg=dict(
            type='swin_dense.Pretrained',
            checkpoint='https://github.com/SwinTransformer/storage/releases/download/v1.0.8/swin_small_patch4_window7_224_22k.pth',
        ),
    ),
)
