# Swin-B, window 7, ImageNet-1k weights from Microsoft's release. Used like swin_tiny.py.
release = 'https://github.com/SwinTransformer/storage/releases/download/v1.0.0/swin_base_patch4_'
channels = [128, 256, 512, 1024]  # C2..C5: embed_dims * (1, 2, 4, 8)
backbone = dict(
    _delete_=True,  # nothing of the host's backbone may leak in
    type='swin_dense.SwinTransformer',
    embed_dims=128,
    depths=(2, 2, 18, 2),
    num_heads=(4, 8, 16, 32),
    window_size=7,
    drop_path_rate=0.3,
    init_cfg=dict(type='swin_dense.Pretrained', checkpoint=release + 'window7_224.pth'),
)
# other weights of the release: backbone=dict(_base_.backbone, **_base_.weights.in22k)
weights = dict(
    in22k=dict(
        init_cfg=dict(type='swin_dense.Pretrained', checkpoint=release + 'window7_224_22k.pth'),
    ),
    w12=dict(
        window_size=12,
        init_cfg=dict(type='swin_dense.Pretrained', checkpoint=release + 'window12_384.pth'),
    ),
    w12_in22k=dict(
        window_size=12,
        init_cfg=dict(type='swin_dense.Pretrained', checkpoint=release + 'window12_384_22k.pth'),
    ),
)
