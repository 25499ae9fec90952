"""Swin Transformer V2 of one image, slowly and plainly: one token, offset and window at a time.

Nothing is shared with the package. A map is (H, W, C); ``weights`` are the network's by name.
"""

import math

import torch
from torch import Tensor

StateDict = dict[str, Tensor]


def forward(
    weights: StateDict,
    image: Tensor,
    depths: tuple[int, ...],
    num_heads: tuple[int, ...],
    windows: list[tuple[int, int]],
    extra_norm_every: int | None,
) -> list[Tensor]:
    """(3, H, W) -> the maps, each (C_i, H_i, W_i); ``windows`` are (side, side in the pretraining)."""
    maps, x = [], patch_embedding(weights, image)
    for stage, depth in enumerate(depths):
        for index in range(depth):
            name = f'layers.{stage}.blocks.{index}'
            attended = attention(weights, f'{name}.attn', x, num_heads[stage], *windows[stage], index % 2)
            x = x + layer_norm(weights, f'{name}.norm1', attended)
            hidden = linear(weights, f'{name}.mlp.fc1', x)
            hidden = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
            x = x + layer_norm(weights, f'{name}.norm2', linear(weights, f'{name}.mlp.fc2', hidden))
            if extra_norm_every and index % extra_norm_every == extra_norm_every - 1:
                x = layer_norm(weights, f'{name}.norm3', x)
        maps.append(layer_norm(weights, f'norm{stage}', x).permute(2, 0, 1))
        if stage + 1 < len(depths):
            x = merging(weights, f'layers.{stage}.downsample', x)
    return maps


def linear(weights: StateDict, name: str, x: Tensor) -> Tensor:
    y = x @ weights[f'{name}.weight'].T
    return y + weights[f'{name}.bias'] if f'{name}.bias' in weights else y


def layer_norm(weights: StateDict, name: str, x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    variance = centred.square().mean(-1, keepdim=True)
    return centred / (variance + 1e-5).sqrt() * weights[f'{name}.weight'] + weights[f'{name}.bias']


def patch_embedding(weights: StateDict, image: Tensor) -> Tensor:
    kernel = weights['patch_embed.proj.weight']
    rows = []
    for top in range(0, image.size(1), 4):
        row = []
        for left in range(0, image.size(2), 4):
            inside = image[:, top : top + 4, left : left + 4]
            patch = image.new_zeros(len(image), 4, 4)
            patch[:, : inside.size(1), : inside.size(2)] = inside
            row.append((kernel * patch).sum((1, 2, 3)) + weights['patch_embed.proj.bias'])
        rows.append(torch.stack(row))
    return layer_norm(weights, 'patch_embed.norm', torch.stack(rows))


def token(x: Tensor, row: int, column: int) -> Tensor:
    """The token there, zeros beyond the bottom and the right."""
    inside = row < x.size(0) and column < x.size(1)
    return x[row, column] if inside else x.new_zeros(x.size(2))


def merging(weights: StateDict, name: str, x: Tensor) -> Tensor:
    def joined(row: int, column: int) -> Tensor:
        places = [(row, column), (row + 1, column), (row, column + 1), (row + 1, column + 1)]
        return torch.cat([token(x, *place) for place in places])

    rows = [
        torch.stack([joined(row, column) for column in range(0, x.size(1), 2)])
        for row in range(0, x.size(0), 2)
    ]
    return layer_norm(weights, f'{name}.norm', linear(weights, f'{name}.reduction', torch.stack(rows)))


def log_coordinate(offset: int, pretrained: int) -> float:
    """An offset in rows or columns, as the MLP of the position bias sees it."""
    scaled = 8 * offset / (pretrained - 1) if pretrained > 1 else 8 * offset
    return math.copysign(math.log(1 + abs(scaled)) / math.log(8), offset)


def position_bias(weights: StateDict, name: str, dy: int, dx: int, pretrained: int) -> Tensor:
    """(nH,) for one offset between query and key."""
    coordinates = [log_coordinate(dy, pretrained), log_coordinate(dx, pretrained)]
    hidden = linear(weights, f'{name}.cpb_mlp.0', weights[f'{name}.proj.bias'].new_tensor(coordinates))
    return 16 / (1 + torch.exp(-linear(weights, f'{name}.cpb_mlp.2', hidden.clamp(min=0))))


def region(place: int, size: int, window: int, shift: int) -> int:
    """Of the stretches along one axis of the rolled map that may not see each other, which this is in."""
    if shift == 0 or place < size - window:
        return 0
    return 1 if place < size - shift else 2


def attention(
    weights: StateDict, name: str, x: Tensor, num_heads: int, window: int, pretrained: int, shifted: int
) -> Tensor:
    shift = window // 2 if shifted else 0
    height, width = (math.ceil(side / window) * window for side in x.shape[:2])
    inner = [(row, column) for row in range(window) for column in range(window)]
    steps = range(1 - window, window)
    by_offset = {(dy, dx): position_bias(weights, name, dy, dx, pretrained) for dy in steps for dx in steps}
    bias = torch.stack([torch.stack([by_offset[qy - ky, qx - kx] for ky, kx in inner]) for qy, qx in inner])

    result = {}
    for top in range(0, height, window):
        for left in range(0, width, window):
            places = [(top + row, left + column) for row, column in inner]
            origins = [((row + shift) % height, (column + shift) % width) for row, column in places]
            regions = [
                (region(row, height, window, shift), region(column, width, window, shift))
                for row, column in places
            ]
            mask = x.new_tensor([[0 if a == b else -100 for b in regions] for a in regions])
            tokens = torch.stack([token(x, *origin) for origin in origins])
            attended = attend(weights, name, tokens, num_heads, bias.permute(2, 0, 1) + mask)
            result.update(zip(origins, attended, strict=True))
    rows = [torch.stack([result[row, column] for column in range(x.size(1))]) for row in range(x.size(0))]
    return torch.stack(rows)


def attend(weights: StateDict, name: str, tokens: Tensor, num_heads: int, bias: Tensor) -> Tensor:
    """(N, C) tokens of one window, (nH, N, N) bias -> (N, C)."""
    query, key, value = (tokens @ weight.T for weight in weights[f'{name}.qkv.weight'].chunk(3))
    if f'{name}.q_bias' in weights:
        query, value = query + weights[f'{name}.q_bias'], value + weights[f'{name}.v_bias']
    channels = tokens.size(1) // num_heads
    heads = []
    for head in range(num_heads):
        q, k, v = (x[:, head * channels : (head + 1) * channels] for x in (query, key, value))
        lengths = torch.linalg.vector_norm(q, dim=1)[:, None] * torch.linalg.vector_norm(k, dim=1)[None, :]
        cosine = (q @ k.T) / torch.where(lengths == 0, 1, lengths)
        scale = torch.exp(weights[f'{name}.logit_scale'][head, 0, 0]).clamp(max=100)
        heads.append(torch.softmax(cosine * scale + bias[head], dim=1) @ v)
    return linear(weights, f'{name}.proj', torch.cat(heads, dim=1))
