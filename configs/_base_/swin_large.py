# Swin-L, window 7, ImageNet-22k weights from Microsoft's release. Used like swin_tiny.py.
release = 'https://github.com/SwinTransformer/storage/releases/download/v1.0.0/swin_large_patch4_'
channels = [192, 384, 768, 1536]  # C2..C5: embed_dims * (1, 2, 4, 8)
backbone = dict(
    _delete_=True,  # nothing of the host's backbone may leak in
    type='swin_dense.SwinTransformer',
    embed_dims=192,
    depths=(2, 2, 18, 2),
    num_heads=(6, 12, 24, 48),
    window_size=7,
    drop_path_rate=0.3,
    init_cfg=dict(type='swin_dense.Pretrained', checkpoint=release + 'window7_224_22k.pth'),
)
# other weights of the release: backbone=dict(_base_.backbone, **_base_.weights.w12)
weights = dict(
    w12=dict(
        window_size=12,
        init_cfg=dict(type='swin_dense.Pretrained', checkpoint=release + 'window12_384_22k.pth'),
    ),
)
