"""Label maps of an evaluation: written beside their folder, which they become as a whole at its end."""

import io
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from mmengine.dist import all_gather_object, broadcast_object_list, get_rank, is_main_process
from PIL import Image

from swin_dense.errors import UserError
from swin_dense.storage import folders
from swin_dense.storage.atomic import PARTIAL


def map_names(images: Iterable[Path]) -> dict[Path, str]:
    """The name of each image's label map, without suffix: its stem.

    Images that share a stem have their path below the folder that all of them lie in, and with
    their suffix if that is what tells them apart.
    """
    groups: dict[str, set[Path]] = {}
    for image in images:
        groups.setdefault(image.stem, set()).add(image)
    names: dict[Path, str] = {}
    for stem, group in groups.items():
        if len(group) == 1:
            names |= dict.fromkeys(group, stem)
            continue
        common = os.path.commonpath([image.absolute().parent for image in group])
        paths = {image: Path(os.path.relpath(image.absolute(), common)) for image in group}
        counts = Counter(path.with_suffix('') for path in paths.values())
        for image, path in paths.items():
            plain = path.with_suffix('')
            known = plain if counts[plain] == 1 else path.with_name(path.name.replace('.', '_'))
            names[image] = known.as_posix()
    return names


class LabelFolder:
    """A folder of PNG label maps that a new evaluation replaces, whole or not at all.

    Each process writes into a folder of its own beside it; the first makes one of them.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._partial = path.with_name(path.name + PARTIAL)
        self._images: list[str] = []  # of which this process has written the maps 0, 1, 2, ...

    def add(self, image: str, labels: np.ndarray) -> None:
        """Write the label map (H, W) of an image file.

        Raises:
            DiskFullError: there is no space; the folder of an earlier evaluation is intact.
            UserError: it cannot be written for another reason.
        """
        folder = self._of_rank(get_rank())
        try:
            if not self._images:
                shutil.rmtree(folder, ignore_errors=True)  # of an evaluation that was interrupted
                folder.mkdir(parents=True, exist_ok=True)
            buffer = io.BytesIO()
            Image.fromarray(labels).save(buffer, 'PNG')
            (folder / f'{len(self._images)}.png').write_bytes(buffer.getbuffer())
        except OSError as error:
            failure = folders.as_user_error(error, self.path)
            shutil.rmtree(folder, ignore_errors=True)  # the space is needed
            raise failure from error
        self._images.append(image)

    def finish(self) -> None:
        """Put the folder in its place: called by all processes after their last ``add``; errors as ``add``'s.

        Without a single map nothing changes.
        """
        written: Sequence[list[str]] = all_gather_object(self._images)
        self._images = []
        failure: list[str | None] = [None]
        error: UserError | None = None
        if is_main_process() and any(written):
            try:
                self._gather(written)
            except (OSError, UserError) as caught:
                error = caught if isinstance(caught, UserError) else folders.as_user_error(caught, self.path)
                failure = [str(error)]
        broadcast_object_list(failure)  # the others wait, as the next evaluation writes to the same places
        if error is not None:
            raise error
        if failure[0] is not None:
            raise UserError(failure[0])

    def _gather(self, written: Sequence[list[str]]) -> None:
        names = map_names(Path(image) for images in written for image in images)
        whole = self._partial / 'all'
        shutil.rmtree(whole, ignore_errors=True)
        for rank, images in enumerate(written):
            for number, image in enumerate(images):
                target = whole / f'{names[Path(image)]}.png'
                target.parent.mkdir(parents=True, exist_ok=True)
                (self._of_rank(rank) / f'{number}.png').replace(target)
        folders.replace(whole, self.path)
        shutil.rmtree(self._partial, ignore_errors=True)

    def _of_rank(self, rank: int) -> Path:
        return self._partial / f'rank_{rank}'
