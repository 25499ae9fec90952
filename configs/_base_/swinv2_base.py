# Swin V2-B, window 8, ImageNet-1k weights from Microsoft's release. Used like swin_tiny.py.
release = 'https://github.com/SwinTransformer/storage/releases/download/v2.0.0/swinv2_base_patch4_'
channels = [128, 256, 512, 1024]  # C2..C5: embed_dims * (1, 2, 4, 8)
backbone = dict(
    _delete_=True,  # nothing of the host's backbone may leak in
    type='swin_dense.SwinTransformerV2',
    embed_dims=128,
    depths=(2, 2, 18, 2),
    num_heads=(4, 8, 16, 32),
    window_size=8,
    drop_path_rate=0.3,
    init_cfg=dict(type='swin_dense.Pretrained', checkpoint=release + 'window8_256.pth'),
)
# as Microsoft trains it: optim_wrapper = dict(paramwise_cfg=dict(custom_keys=_base_.no_decay))
no_decay = dict(cpb_mlp=dict(decay_mult=0.0), logit_scale=dict(decay_mult=0.0))
# other weights of the release: backbone=dict(_base_.backbone, **_base_.weights.w16_in22k)
# Microsoft's classifier shrinks the window to the map in the last stage (8x8 at 256 pixels, 6x6 at 192): hence the last pretrained size.
weights = dict(
    w16=dict(
        window_size=16,
        pretrained_window_sizes=(16, 16, 16, 8),
        init_cfg=dict(type='swin_dense.Pretrained', checkpoint=release + 'window16_256.pth'),
    ),
    w12_in22k=dict(
        window_size=12,
        pretrained_window_sizes=(12, 12, 12, 6),
        init_cfg=dict(type='swin_dense.Pretrained', checkpoint=release + 'window12_192_22k.pth'),
    ),
    w16_in22k=dict(
        window_size=16,
        pretrained_window_sizes=(12, 12, 12, 6),
        init_cfg=dict(
            type='swin_dense.Pretrained', checkpoint=release + 'window12to16_192to256_22kto1k_ft.pth'
        ),
    ),
    w24_in22k=dict(
        window_size=24,
        pretrained_window_sizes=(12, 12, 12, 6),
        init_cfg=dict(
            type='swin_dense.Pretrained', checkpoint=release + 'window12to24_192to384_22kto1k_ft.pth'
        ),
    ),
)
