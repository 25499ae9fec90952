"""The interface of a task: every difference between detection, semantic segmentation and other tasks."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np
from mmengine.config import Config
from mmengine.structures import BaseDataElement
from torch import nn

from swin_dense.console.findings import Finding
from swin_dense.data.fields import set_classes
from swin_dense.data.zero_label import ZeroLabel
from swin_dense.drawing.pictures import Drawing, Pair
from swin_dense.errors import UserError
from swin_dense.evaluate.offline import Evaluated
from swin_dense.tasks.examples import Example
from swin_dense.tiling.tiles import Track

ALL_SPLITS = ('train', 'val', 'test')


class Prediction(Protocol):
    """The prediction for one image."""

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) of the image."""

    def crop(self, height: int, width: int) -> 'Prediction':
        """The prediction for the top left part of the image."""


P = TypeVar('P', bound=Prediction)
T = TypeVar('T')  # ground truth of a data set, with the rules to score against it


@dataclass(frozen=True)
class DataOptions:
    """The options of a command line about the data.

    Attributes:
        root: folder that replaces every path (``--data``).
        classes: file with one class name a line (``--classes``).
        zero_label: whether label 0 of label maps is a class (``--zero-label``); None where it is not said.
        options: the ``KEY=VALUE`` that are in the config.
    """

    root: Path | None = None
    classes: Path | None = None
    zero_label: ZeroLabel | None = None
    options: Sequence[str] = ()


@dataclass(frozen=True)
class Wanted:
    """The options of a prediction run about its output.

    Attributes:
        out: the folder.
        classes: names, in the order of the labels.
        score: least score of an object; None keeps all and draws those from 0.5.
        labels: classes that are kept; None for all.
        zero_is_unlabelled: label 0 of the training data means unlabelled.
        ids: a COCO annotation file whose ids the predictions get.
        file_names: of the images and videos that are predicted.
        has_video: whether there are videos among them.
    """

    out: Path
    classes: tuple[str, ...]
    score: float | None = None
    labels: Sequence[int] | None = None
    zero_is_unlabelled: bool = False
    ids: Path | None = None
    file_names: Sequence[str] = ()
    has_video: bool = False


Record = Mapping[str, Any]  # the journal's line about an image or a frame, in the form of JSON


class Output(ABC, Generic[P]):
    """The files of a prediction run beside its pictures."""

    @abstractmethod
    def files(self, name: str, is_video: bool) -> list[Path]:
        """The files that exist when an image or a video of this name is done."""

    @abstractmethod
    def keep(self, prediction: P) -> P:
        """The part of a prediction that the user asked for."""

    @abstractmethod
    def write(self, name: str, kept: P) -> dict[str, Any] | None:
        """Write what an image's or a frame's prediction has for itself alone.

        Returns:
            What ``finish`` needs of it later, in the form of JSON; None if that is nothing.
        """

    @abstractmethod
    def picture(self, image: np.ndarray, kept: P, is_frame: bool) -> np.ndarray:
        """A picture (H', W', 3) uint8 RGB of a prediction over its image (H, W, 3) uint8 RGB."""

    @abstractmethod
    def finish(self, records: Iterable[tuple[str, Record]]) -> str:
        """Write the files that are about all images.

        Args:
            records: the file name of each image or video, with what ``write`` returned for it or its frames.

        Returns:
            The files and what is in them, for a person.
        """


@dataclass(frozen=True)
class Texts:
    """The sentences of a report that differ between tasks.

    Attributes:
        headline: the task and what its figures measure.
        amount: the count that says how much ground truth there is, and its unit.
        unit: of the counts in the confusion matrix.
        remainder: title of the matrix's last column.
        matrix: a note about the matrix.
        value: a note about the number of an image.
        mark: style (in ``page.css``) and text of what pictures show beside the colours of the classes.
    """

    headline: str
    amount: tuple[str, str]
    unit: str
    remainder: str
    matrix: str
    value: str
    mark: tuple[str, str]


@dataclass
class Scored:
    """Predictions of a data set, scored.

    Attributes:
        evaluated: figures.
        examples: the images, each with its value and pictures; made when called.
    """

    evaluated: Evaluated
    examples: Callable[[], list[Example]] = field(default=list)


@dataclass(frozen=True)
class Tiling:
    """How a large image is cut.

    Attributes:
        size: side of a tile in pixels of the image.
        overlap: fraction of a tile that neighbours share.
        batch: tiles that are predicted together.
        track: shows the progress.
    """

    size: int
    overlap: float
    batch: int
    track: Track


class Task(ABC, Generic[T, P]):
    """One task. What a method of this class does not know ends in one line for the user.

    Attributes:
        name: of the task, for a person and for JSON.
        scopes: ``default_scope`` of its configs.
        in_percent: the host's metrics are in percent, not fractions.
        texts: for the report.
    """

    name: ClassVar[str]
    scopes: ClassVar[tuple[str, ...]]
    in_percent: ClassVar[bool] = False
    texts: ClassVar[Texts]

    def takes(self, config: Config) -> bool:
        """Whether a config is for this task."""
        return config.get('default_scope') in self.scopes

    # data sets

    def point_at(self, config: Config, root: Path) -> None:
        """Replace every path of a config's data sets by those below ``root``.

        Raises:
            UserError: the folder lacks something.
        """
        raise self._lacks('--data')

    def name_classes(self, config: Config, given: DataOptions) -> None:
        """Make data sets and heads agree on the classes, and check that every path exists.

        Args:
            config: changed in place.
            given: by the command line.

        Raises:
            UserError: they do not agree, or a path does not exist.
        """
        if given.classes is not None:
            raise self._lacks('--classes')
        if given.zero_label is not None:
            raise self._lacks('--zero-label')

    def check(
        self, config: Config, decode: bool, splits: Sequence[str] = ALL_SPLITS, skip_bad: bool = False
    ) -> list[Finding]:
        """Check the data sets of a config; arguments as those of ``check.data_sets``."""
        return []

    # pictures of a run

    @abstractmethod
    def truth(self, sample: BaseDataElement) -> Drawing:
        """The ground truth of a host's data sample."""

    @abstractmethod
    def pair(self, sample: BaseDataElement) -> Pair:
        """The ground truth and the prediction of a host's data sample."""

    def header(self, dataset: Any) -> dict[str, str]:  # noqa: ANN401  of a host
        """Rows for the header of a run, about its data set."""
        return {}

    def amount(self, samples: Sequence[BaseDataElement]) -> str:
        """How much ground truth a batch has, for a person."""
        return f'{len(samples)} images'

    # predictions that were saved

    def wrote(self, path: Path) -> bool:
        """Whether a file or folder holds predictions of this task."""
        return False

    def of_run(self, work_dir: Path) -> Path:
        """The predictions that the last evaluation of a run left."""
        return work_dir / 'predictions'

    def hand_out(self, config: Config, written: Path, out: Path) -> None:
        """Copy the predictions of an evaluation to where the user wants them.

        Args:
            config: of the evaluation.
            written: where its evaluator wrote: a prefix of file names, or a folder.
            out: what ``--out`` names.
        """
        raise self._lacks('--out')

    def prepare_truth(self, config: Config, given: DataOptions) -> None:
        """Prepare a config for ``ground_truth``; arguments and errors as those of ``name_classes``."""
        if given.root is not None:
            self.point_at(config, given.root)
        self.name_classes(config, given)

    def ground_truth(self, config: Config, root: Path | None = None) -> T:
        """The ground truth of the config's test loader, or the same of another folder ``root``.

        Raises:
            UserError: it is missing or broken.
        """
        raise self._lacks('scoring without a model')

    def truth_of_folder(self, given: DataOptions) -> T:
        """The ground truth of a data folder, with the host's default rules; errors as ``ground_truth``."""
        raise self._lacks('scoring without a model')

    def score(self, truth: T, predictions: Path) -> Scored:
        """Score saved predictions.

        Raises:
            UserError: they are missing or broken, or do not belong to the ground truth.
        """
        raise self._lacks('scoring without a model')

    # prediction for images

    def fit_heads(self, model: Mapping[str, Any], data: Mapping[str, Any]) -> None:
        """Give the heads of a model config the classes that a checkpoint was trained with.

        Args:
            model: changed in place.
            data: the checkpoint's ``dataset_meta``, with ``classes``.
        """
        set_classes(model, len(data['classes']))

    def prediction(
        self, sample: BaseDataElement, classes: tuple[str, ...], model: nn.Module, logits: bool
    ) -> P:
        """The prediction in a host's data sample.

        Args:
            sample: as the model returns it.
            classes: names.
            model: the model that predicted.
            logits: keep the logits too, if the task has any.
        """
        raise self._lacks('prediction')

    def tiled(
        self,
        predict: Callable[[Sequence[np.ndarray], bool], Sequence[P]],
        model: nn.Module,
        image: np.ndarray,
        tiling: Tiling,
    ) -> P:
        """The prediction for a large image from those of its tiles.

        Args:
            predict: takes images, and whether logits are kept.
            model: the model that predicts.
            image: (H, W, C).
            tiling: size and overlap.
        """
        raise self._lacks('--tile')

    def output(self, wanted: Wanted) -> Output[P]:
        """The writer of a prediction run.

        Raises:
            UserError: the task has no such ids, or a file of ids does not fit.
        """
        raise self._lacks('prediction')

    def _lacks(self, what: str) -> UserError:
        return UserError(f'{what} is not there for {self.name}')
