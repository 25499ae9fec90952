"""The images of a report: the choice of them, and their photographs and overlays as small data URIs."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image
from rich.progress import track

from swin_dense.errors import UserError
from swin_dense.tasks.examples import Example

EACH = 12  # best, worst and most confused images
MORE = 24  # others, evenly from the rest, so that the page stays small


def choose(examples: Sequence[Example]) -> list[tuple[Example, list[str]]]:
    """The best, worst and most confused images and some of the rest, each with what it is, best first."""
    order = sorted(examples, key=lambda example: -example.value)
    half = (len(order) + 1) // 2  # of a few images, none is both best and worst
    best, worst = order[: min(EACH, half)], order[::-1][: min(EACH, len(order) - half)]
    confused = sorted((e for e in examples if e.confused > 0), key=lambda e: -e.confused)[:EACH]
    chosen = {id(example) for example in (*best, *worst, *confused)}
    rest = [example for example in order if id(example) not in chosen]
    steps = np.linspace(0, len(rest) - 1, min(MORE, len(rest))).astype(int)
    chosen |= {id(rest[i]) for i in steps}
    ranks = {'best': best, 'worst': worst, 'confused': confused}
    tags = {name: {id(example) for example in group} for name, group in ranks.items()}
    return [
        (example, [name for name, group in tags.items() if id(example) in group])
        for example in order
        if id(example) in chosen
    ]


def embed(examples: Sequence[Example]) -> list[dict]:
    """The chosen images in the form of JSON; one whose file cannot be read has no pictures."""
    items = []
    chosen = choose(examples)
    ranks = {id(e): i for i, e in enumerate(sorted(examples, key=lambda e: -e.confused))}
    for example, tags in track(chosen, 'drawing images', transient=True):
        item = dict(name=example.name, value=example.value, classes=example.classes, said=example.said)
        item |= dict(tags=tags, confused=ranks[id(example)])
        try:
            photo, truth, prediction = example.draw()
        except UserError:
            item['missing'] = True
        else:
            item |= dict(width=photo.shape[1], height=photo.shape[0], photo=_uri(photo))
            item |= dict(truth=_uri(truth), prediction=_uri(prediction))
        items.append(item)
    return items


def _uri(pixels: np.ndarray) -> str:
    """A WebP data URI: photographs with loss, overlays (with alpha) without."""
    buffer = io.BytesIO()
    overlay = pixels.shape[-1] == 4
    Image.fromarray(pixels).save(buffer, 'WEBP', quality=60 if overlay else 78, lossless=overlay, method=4)
    return 'data:image/webp;base64,' + base64.b64encode(buffer.getvalue()).decode()
