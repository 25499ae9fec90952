# Swin V2-L, window 16, weights from Microsoft's release: ImageNet-22k, then 1k. Used like swin_tiny.py.
# Microsoft's classifier shrinks the window to the map in the last stage (6x6 at 192 pixels): hence the last pretrained size.
release = 'https://github.com/SwinTransformer/storage/releases/download/v2.0.0/swinv2_large_patch4_'
channels = [192, 384, 768, 1536]  # C2..C5: embed_dims * (1, 2, 4, 8)
backbone = dict(
    _delete_=True,  # nothing of the host's backbone may leak in
    type='swin_dense.SwinTransformerV2',
    embed_dims=192,
    depths=(2, 2, 18, 2),
    num_heads=(6, 12, 24, 48),
    window_size=16,
    pretrained_window_sizes=(12, 12, 12, 6),
    drop_path_rate=0.3,
    init_cfg=dict(type='swin_dense.Pretrained', checkpoint=release + 'window12to16_192to256_22kto1k_ft.pth'),
)
# as Microsoft trains it: optim_wrapper = dict(paramwise_cfg=dict(custom_keys=_base_.no_decay))
no_decay = dict(cpb_mlp=dict(decay_mult=0.0), logit_scale=dict(decay_mult=0.0))
# other weights of the release: backbone=dict(_base_.backbone, **_base_.weights.w24)
weights = dict(
    w12=dict(
        window_size=12,
        pretrained_window_sizes=(12, 12, 12, 6),
        init_cfg=dict(type='swin_dense.Pretrained', checkpoint=release + 'window12_192_22k.pth'),
    ),
    w24=dict(
        window_size=24,
        pretrained_window_sizes=(12, 12, 12, 6),
        init_cfg=dict(
            type='swin_dense.Pretrained', checkpoint=release + 'window12to24_192to384_22kto1k_ft.pth'
        ),
    ),
)
