"""Pictures: what is drawn where, and the grid that is saved."""

import errno
from pathlib import Path

import cv2
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from swin_dense.drawing import pictures
from swin_dense.drawing.colours import colours
from swin_dense.drawing.painter import LABEL_FILL, MASK_FILL, muted
from swin_dense.drawing.pictures import Drawing, Pair
from swin_dense.errors import DiskFullError
from swin_dense.formats.label_maps import IGNORED

HEIGHT, WIDTH = 60, 90
CLASSES = ('a', 'b', 'c')


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def objects(with_masks: bool = True) -> Drawing:
    masks = np.zeros((2, HEIGHT, WIDTH), bool)
    masks[0, 10:30, 12:40] = True
    masks[1, 35:50, 50:80] = True
    boxes = np.array([[12, 10, 39, 29], [50, 35, 79, 49]], np.float32)
    return Drawing(np.array([0, 2]), boxes, masks if with_masks else None, np.array([0.9, 0.6]))


def test_pixels_outside_masks_and_boxes_are_left_alone(image: np.ndarray):
    before, drawing = image.copy(), objects()
    drawn = pictures.draw(image, drawing, CLASSES)
    assert np.array_equal(image, before), 'a new image is returned'
    assert drawn.shape == image.shape
    assert drawn.dtype == np.uint8
    near = cv2.dilate(drawing.masks.any(0).astype(np.uint8), np.ones((5, 5))).astype(bool)  # outlines
    assert np.array_equal(drawn[~near], image[~near])
    inside = cv2.erode(drawing.masks.astype(np.uint8).transpose(1, 2, 0), np.ones((5, 5))).astype(bool)
    for i, label in enumerate(drawing.labels):
        mask = inside[..., i]
        assert np.abs(drawn[mask] - tinted(image, colours(3)[label], MASK_FILL)[mask]).max() <= 1
        edges = cv2.findContours(drawing.masks[i].astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[
            0
        ][0]
        for x, y in edges[:, 0]:
            assert tuple(drawn[y, x]) == tuple(colours(3)[label]), 'the outline has the colour of the legend'


def tinted(image: np.ndarray, colour: np.ndarray, fill: int) -> np.ndarray:
    """A muted photograph with so much of a colour over it."""
    return (1 - fill / 255) * muted(image) + fill / 255 * colour


def test_boxes_alone(image: np.ndarray):
    drawing = objects(with_masks=False)
    drawn = pictures.draw(image, drawing, CLASSES)
    changed = (drawn != image).any(-1)
    allowed = np.zeros_like(changed)
    for x1, y1, x2, y2 in drawing.boxes.astype(int):
        allowed[y1 - 1 : y2 + 2, x1 - 1 : x2 + 2] = True
        allowed[y1 + 2 : y2 - 1, x1 + 2 : x2 - 1] = False
    assert changed.any()
    assert not (changed & ~allowed).any()
    assert np.array_equal(drawn[10, 20], colours(3)[0]), 'the colour of its class'


def test_no_objects(image: np.ndarray):
    nothing = Drawing(np.zeros(0, int), np.zeros((0, 4)), np.zeros((0, HEIGHT, WIDTH), bool))
    assert np.array_equal(pictures.draw(image, nothing, CLASSES), image)


def test_a_label_map(image: np.ndarray):
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[:, 30:] = 1
    labels[:, 60:] = IGNORED
    drawn = pictures.draw(image, Drawing(label_map=labels), CLASSES).astype(int)
    for label, inside, border in ((0, slice(0, 29), 29), (1, slice(31, 59), 30), (1, slice(31, 59), 59)):
        colour = colours(3)[label]
        assert np.abs(drawn[:, inside] - tinted(image, colour, LABEL_FILL)[:, inside]).max() <= 1
        assert (drawn[:, border] == colour).all(), 'regions have an outline in the colour of the legend'
    assert (drawn[:, 60:] <= 66).all(), 'unlabelled pixels are dark, in no colour'


def test_the_background_has_no_colour(image: np.ndarray):
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[:, 30:] = 1
    drawn = pictures.draw(image, Drawing(label_map=labels), ('background', 'a'))
    assert np.array_equal(drawn[:, :30], muted(image)[:, :30])
    assert (drawn[:, 30] == colours(2)[1]).all()


def test_a_photograph_is_muted(image: np.ndarray):
    """Under labels it has little colour left, and no dark parts."""
    before, after = image.astype(int), muted(image).astype(int)
    assert np.ptp(after, axis=-1).mean() < 0.2 * np.ptp(before, axis=-1).mean()
    assert after.min() >= 85
    brightness = before @ (0.299, 0.587, 0.114)
    assert np.corrcoef(brightness.ravel(), after.mean(-1).ravel())[0, 1] > 0.99, (
        'and it is still that photograph'
    )


def test_overlapping_masks_do_not_mix(image: np.ndarray):
    """Where a red tint over a green one was brown, the upper one stays what it is."""
    drawing = objects()
    drawing.masks[1] = drawing.masks[0]
    alone = Drawing(drawing.labels[1:], None, drawing.masks[1:])
    both = Drawing(drawing.labels, None, drawing.masks)
    assert np.array_equal(pictures.draw(image, both, CLASSES), pictures.draw(image, alone, CLASSES))


def saved(folder: Path, image: np.ndarray, count: int) -> list[Path]:
    paths = [folder / f'{i}.png' for i in range(count)]
    for path in paths:
        cv2.imwrite(str(path), image[..., ::-1])
    return paths


@pytest.mark.parametrize('count', [1, 3, 6])
def test_the_grid(tmp_path: Path, image: np.ndarray, count: int):
    pairs = [Pair(path, objects(), objects(with_masks=False)) for path in saved(tmp_path, image, count)]
    pictures.save_grid(pairs, CLASSES, tmp_path / 'new' / 'predictions.png')
    grid = cv2.imread(str(tmp_path / 'new' / 'predictions.png'))
    height, width = grid.shape[:2]
    assert 300 < height < 1500
    assert 150 * count < width < 1000 * count
    assert grid.std() > 10, 'something is drawn'


def test_the_grid_of_label_maps_with_many_classes(tmp_path: Path, image: np.ndarray):
    labels = np.random.default_rng(1).integers(0, 150, (HEIGHT, WIDTH))
    pairs = [
        Pair(path, Drawing(label_map=labels), Drawing(label_map=labels)) for path in saved(tmp_path, image, 2)
    ]
    pictures.save_grid(pairs, [f'class {i}' for i in range(150)], tmp_path / 'predictions.png')
    assert cv2.imread(str(tmp_path / 'predictions.png')).shape[0] > 300


@pytest.mark.parametrize('count', [1, 3, 5, 11])
def test_a_batch(tmp_path: Path, image: np.ndarray, count: int, monkeypatch: pytest.MonkeyPatch):
    shown: list[tuple] = []
    monkeypatch.setattr(Figure, 'legend', lambda figure, handles, **style: shown.append(handles))
    written: list[str] = []
    monkeypatch.setattr(Axes, 'text', lambda axis, x, y, text, **style: written.append(text))
    path = tmp_path / 'new' / 'dry_run.png'
    pictures.save_batch([image] * count, [objects()] * count, CLASSES, path)
    assert written == ['a', 'c'] * min(count, pictures.BATCH)
    assert [handle.get_label() for handle in shown[0]] == ['a', 'c'], 'the classes that are in it'
    picture = cv2.imread(str(path))
    assert picture.std() > 10
    assert max(picture.shape) < 2500


def test_a_batch_of_label_maps_and_of_nothing(tmp_path: Path, image: np.ndarray):
    labels = np.full((HEIGHT, WIDTH), IGNORED)
    labels[:20] = 140
    nothing = Drawing(np.zeros(0, int), np.zeros((0, 4)), np.zeros((0, HEIGHT, WIDTH), bool))
    for drawing in (Drawing(label_map=labels), nothing):
        path = tmp_path / 'dry_run.png'
        pictures.save_batch([image], [drawing], [f'$class_{i}' for i in range(150)], path)
        assert cv2.imread(str(path)).std() > 10
        path.unlink()


STRANGE = ('\udc80\x1b[31m', '$\\foo$', 'a$b$\n')  # no text, no formula, two lines


def test_any_class_name_can_be_drawn(tmp_path: Path):
    """matplotlib takes what is between two dollars for a formula, and ends on a wrong one."""
    drawing = pictures.Drawing(np.arange(3), np.array([[1, 1, 20, 20], [2, 2, 9, 9], [3, 3, 30, 30.0]]))
    image = np.zeros((60, 60, 3), np.uint8)
    pictures.save_batch([image], [drawing], STRANGE, tmp_path / 'batch.png')
    cv2.imwrite(str(tmp_path / 'image.png'), image)
    pair = pictures.Pair(tmp_path / 'image.png', drawing, drawing)
    pictures.save_grid([pair], STRANGE, tmp_path / 'grid.png')
    assert min(cv2.imread(str(tmp_path / 'grid.png')).shape[:2]) > 200


def test_a_picture_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    drawing, image = pictures.Drawing(label_map=np.zeros((9, 9), int)), np.zeros((9, 9, 3), np.uint8)
    path = tmp_path / 'predictions.png'
    pictures.save_batch([image], [drawing], ['a'], path)
    before = path.read_bytes()

    def full(self: object, path: Path, **options: object) -> None:
        path.write_bytes(b'half')
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr('matplotlib.figure.Figure.savefig', full)
    with pytest.raises(DiskFullError, match=r'predictions.png cannot be written: the disk is full \(4 bytes'):
        pictures.save_batch([image], [drawing], ['a'], path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ['predictions.png']
