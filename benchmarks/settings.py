"""What is measured: architectures, peers, settings, the suites that list them, and the targets. Data only."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple


class Architecture(NamedTuple):
    """A size of Swin; the window follows from the version."""

    embed_dims: int
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]


ARCHITECTURES = {
    'nano': Architecture(32, (2, 2, 2, 2), (1, 2, 4, 8)),  # the demo's, for tests
    'T': Architecture(96, (2, 2, 6, 2), (3, 6, 12, 24)),
    'S': Architecture(96, (2, 2, 18, 2), (3, 6, 12, 24)),
    'B': Architecture(128, (2, 2, 18, 2), (4, 8, 16, 32)),
}
WINDOWS = {1: 7, 2: 8}
OURS = 'ours'
# who has what, by model and version
PEERS = {
    ('backbone', 1): ('mmdet', 'mmseg', 'timm', 'torchvision', 'transformers'),
    ('backbone', 2): ('timm', 'torchvision', 'transformers', 'mmpretrain'),
    ('mask_rcnn', 1): ('mmdet',),
    ('upernet', 1): ('mmseg',),
}
# the distribution that each peer is installed by
DISTRIBUTIONS = {'mmseg': 'mmsegmentation'}
# ways to run a model; CUDA graphs are torch.compile's mode 'reduce-overhead'
MODES = {'cpu': ('eager', 'compiled'), 'cuda': ('eager', 'compiled', 'graphs')}
PHASES = ('inference', 'training')
MODELS = {'backbone': 'backbone', 'mask_rcnn': 'Mask R-CNN', 'upernet': 'UPerNet'}
# height and width in pixels
SQUARES = ((512, 512), (1024, 1024), (1536, 1536), (2048, 2048))
DETECTION, SEGMENTATION = (800, 1333), (512, 512)
SIZES = (SEGMENTATION, DETECTION, *SQUARES[1:])


@dataclass(frozen=True)
class Setting:
    """One measurement.

    Attributes:
        model: key in ``MODELS``.
        phase: ``'inference'``, or ``'training'``: forward and backward, no optimizer.
        height, width: of the image in pixels.
        batch: images.
        variant: key in ``ARCHITECTURES``.
        version: of Swin, 1 or 2.
        peers: whom to compare with, all that have such a model if empty.
        eager_only: leave the compiled ways out.
    """

    model: str
    phase: str
    height: int
    width: int
    batch: int = 1
    variant: str = 'T'
    version: int = 1
    peers: tuple[str, ...] = ()
    eager_only: bool = False

    @property
    def name(self) -> str:
        """What identifies it, for people too; whom it is compared with is no part of it."""
        swin = f'Swin{"V2" if self.version == 2 else ""}-{self.variant}'
        size = f'{self.height}x{self.width}, batch {self.batch}'
        return f'{swin} {MODELS[self.model]}, {self.phase}, {size}'

    @property
    def compared(self) -> tuple[str, ...]:
        """The peers."""
        return self.peers or PEERS[self.model, self.version]


@dataclass(frozen=True)
class Job:
    """The work of one process.

    Attributes:
        kind: ``'time'`` of ours and the peer, interleaved, or ``'memory'`` of one of them.
        setting: what to measure.
        who: the peer; for memory also ``'ours'``.
        device: ``'cpu'`` or ``'cuda'``.
        dtype: ``'fp32'``, or ``'bf16'``: autocast.
        modes: the ways to run, of ``MODES``.
        rounds: samples of each candidate.
    """

    kind: str
    setting: Setting
    who: str
    device: str = 'cpu'
    dtype: str = 'fp32'
    modes: tuple[str, ...] = ('eager',)
    rounds: int = 10

    @property
    def title(self) -> str:
        """For people."""
        return f'{self.setting.name}, {self.who}, {self.kind}'

    @property
    def cost(self) -> float:
        """How long it takes in comparison with others, roughly: for the estimate of the time left."""
        setting = self.setting
        work = setting.height * setting.width * setting.batch / 512**2
        work *= sum(ARCHITECTURES[setting.variant].depths) / 12
        work *= (3 if setting.phase == 'training' else 1) * (1 if setting.model == 'backbone' else 6)
        compiling = 60 * (len(self.modes) - 1)
        return 10 + compiling + work * (self.rounds * len(self.modes) if self.kind == 'time' else 2)

    def as_dict(self) -> dict:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> 'Job':
        """The inverse of ``as_dict``."""
        setting = dict(values['setting'])
        setting['peers'] = tuple(setting['peers'])
        return cls(**{**values, 'setting': Setting(**setting), 'modes': tuple(values['modes'])})


@dataclass(frozen=True)
class Target:
    """A line of the headline table.

    Attributes:
        title: for people.
        quantity: ``'speed'`` (theirs over ours, best way of each), ``'share'`` (of the matrix-product peak),
            ``'peak'`` and ``'saved'`` (memory, ours over theirs) or ``'exponent'`` (of time against pixels).
        settings: one, or several for the exponent.
        value: the target, None where there is none.
        against: the peers, all if empty; the fastest of them counts.
        modes: the ways to run that count for the peers, all if empty.
    """

    title: str
    quantity: str
    settings: tuple[Setting, ...]
    value: float | None = None
    against: tuple[str, ...] = ()
    modes: tuple[str, ...] = ()

    @property
    def at_least(self) -> bool:
        """Whether the target is a lower bound."""
        return self.quantity in ('speed', 'share')


_LARGE = (Setting('backbone', 'inference', *DETECTION),)
_SMALL = (Setting('backbone', 'inference', *SEGMENTATION),)
_TRAINING = (Setting('backbone', 'training', *SEGMENTATION, batch=2),)
_V2 = (Setting('backbone', 'inference', *SEGMENTATION, version=2),)
_UPERNET = (Setting('upernet', 'inference', *SEGMENTATION),)
_UPERNET_TRAINING = (Setting('upernet', 'training', *SEGMENTATION, batch=2),)
_MASK_RCNN = (Setting('mask_rcnn', 'inference', *DETECTION),)
_SQUARES = (
    *_SMALL,
    *(
        Setting('backbone', 'inference', *size, peers=('mmdet', 'transformers'), eager_only=True)
        for size in SQUARES[1:]
    ),
)
_MMDET = ('mmdet',)
_EAGER, _COMPILED = ('eager',), ('compiled', 'graphs')

# device: the precision that the targets are for, and the lines
HEADLINE = {
    'cpu': (
        'fp32',
        (
            Target('backbone inference, 800x1333, vs the fastest peer', 'speed', _LARGE, 1.4),
            Target('backbone inference, 512x512, vs the fastest peer', 'speed', _SMALL, 1.3),
            Target('share of the matrix-product peak, 800x1333', 'share', _LARGE, 0.8),
            Target('peak memory of inference, 800x1333, vs mmdet', 'peak', _LARGE, 0.35, _MMDET),
            Target('backbone training, 512x512, batch 2, vs the fastest peer', 'speed', _TRAINING, 1.2),
            Target('saved activations of training, vs mmdet', 'saved', _TRAINING, 0.6, _MMDET),
            Target('UPerNet inference, 512x512, vs mmseg', 'speed', _UPERNET, 1.5),
            Target('UPerNet training, 512x512, batch 2, vs mmseg', 'speed', _UPERNET_TRAINING, 1.3),
            Target('Mask R-CNN inference, 800x1333, vs mmdet', 'speed', _MASK_RCNN, 1.2),
            Target('SwinV2-T backbone inference, 512x512, vs the fastest peer', 'speed', _V2, 1.4),
            Target('exponent of inference time in pixels, 512^2 to 2048^2', 'exponent', _SQUARES, 1.05),
        ),
    ),
    'cuda': (
        'bf16',
        (
            Target('backbone inference, 800x1333, vs mmdet eager', 'speed', _LARGE, 3, _MMDET, _EAGER),
            Target(
                'backbone inference, 800x1333, vs the best compiled', 'speed', _LARGE, 1.3, modes=_COMPILED
            ),
            Target('backbone inference, 512x512, vs mmdet eager', 'speed', _SMALL, 3, _MMDET, _EAGER),
            Target(
                'backbone inference, 512x512, vs the best compiled', 'speed', _SMALL, 1.3, modes=_COMPILED
            ),
            Target(
                'backbone training, 512x512, batch 2, vs mmdet eager', 'speed', _TRAINING, 1.8, _MMDET, _EAGER
            ),
            Target('share of the matrix-product peak, 800x1333', 'share', _LARGE),
            Target('peak memory of inference, 800x1333, vs mmdet', 'peak', _LARGE, None, _MMDET),
            Target('saved activations of training, vs mmdet', 'saved', _TRAINING, None, _MMDET),
            Target('UPerNet inference, 512x512, vs mmseg', 'speed', _UPERNET),
            Target('UPerNet training, 512x512, batch 2, vs mmseg', 'speed', _UPERNET_TRAINING),
            Target('Mask R-CNN inference, 800x1333, vs mmdet', 'speed', _MASK_RCNN),
            Target('SwinV2-T backbone inference, 512x512, vs the fastest peer', 'speed', _V2),
            Target('exponent of inference time in pixels, 512^2 to 2048^2', 'exponent', _SQUARES),
        ),
    ),
}


def targets(device: str, dtype: str) -> tuple[Target, ...]:
    """The lines of the headline table; without figures to reach in another precision than theirs."""
    precision, lines = HEADLINE[device]
    return lines if dtype == precision else tuple(replace(line, value=None) for line in lines)


def headline(device: str) -> list[Setting]:
    """The settings that the headline table needs, each once."""
    listed = (setting for target in HEADLINE[device][1] for setting in target.settings)
    return list({setting.name: setting for setting in listed}.values())


def full() -> list[Setting]:
    """The whole grid, the small ones first."""
    return [
        Setting(model, phase, *size, batch, variant, version)
        for size in SIZES
        for variant in ('T', 'S', 'B')
        for model, version in PEERS
        for batch in (1, 2)
        for phase in PHASES
        # mmseg's batch norm cannot train on the single pixel that UPerNet pools an image to
        if (model, phase, batch) != ('upernet', 'training', 1)
    ]


def jobs(
    settings: Sequence[Setting],
    peers: Sequence[str],
    device: str,
    dtype: str,
    modes: Sequence[str],
    rounds: int,
) -> Iterator[Job]:
    """The processes that measure the settings.

    Args:
        settings: what to measure.
        peers: those that are installed.
        device, dtype, rounds: as ``Job``'s.
        modes: the ways that this machine can run.
    """
    for setting in settings:
        compared = [peer for peer in setting.compared if peer in peers]
        ways = ('eager',) if setting.eager_only else tuple(modes)
        for peer in compared:
            yield Job('time', setting, peer, device, dtype, ways, rounds)
        for who in (OURS, *compared):
            yield Job('memory', setting, who, device, dtype)
