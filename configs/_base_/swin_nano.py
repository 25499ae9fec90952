# Swin-nano: a Swin small enough to train from scratch on two CPU cores in minutes (2.3 M parameters).
channels = [32, 64, 128, 256]  # C2..C5: embed_dims * (1, 2, 4, 8)
backbone = dict(
    _delete_=True,
    type='swin_dense.SwinTransformer',
    embed_dims=32,
    depths=(2, 2, 2, 2),
    num_heads=(1, 2, 4, 8),
    window_size=8,
    drop_path_rate=0.05,
)
