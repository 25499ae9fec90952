"""Plots of the measurements, as PNG files."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from benchmarks.report import MEBI, Records, fastest, our_time, speed_up
from benchmarks.settings import OURS, PEERS, SQUARES, Setting

NAMES = (OURS, *dict.fromkeys(peer for peers in PEERS.values() for peer in peers))
COLOURS = dict(
    zip(NAMES, ('#d62728', '#1f77b4', '#17becf', '#2ca02c', '#9467bd', '#ff7f0e', '#7f7f7f'), strict=True)
)


def save(records: Records, folder: Path) -> list[Path]:
    """Draw everything that was measured.

    Returns:
        The files: ``speed.png``, ``scaling.png`` and ``memory.png``.
    """
    drawn = {'speed': speed(records), 'scaling': scaling(records), 'memory': memory(records)}
    paths = []
    for name, figure in drawn.items():
        paths.append(folder / f'{name}.png')
        figure.savefig(paths[-1], dpi=120, bbox_inches='tight')
    return paths


def speed(records: Records) -> Figure:
    """Bars: how many times faster ours is than each peer, by measurement."""
    values = {
        (name, who): speed_up(record) for (kind, name, who), record in records.items() if kind == 'time'
    }
    figure, axes = _bars(values, "peer's time / ours", '.2f')
    axes.axvline(1, color='black', linewidth=1)
    return figure


def memory(records: Records) -> Figure:
    """Bars: peak memory, by measurement."""
    values = {
        (name, who): record['peak'] / MEBI
        for (kind, name, who), record in records.items()
        if kind == 'memory' and record['peak'] is not None
    }
    return _bars(values, 'peak memory of a call, MiB', '.0f')[0]


def _bars(values: dict[tuple[str, str], float], label: str, digits: str) -> tuple[Figure, Axes]:
    """Horizontal bars, grouped by measurement."""
    groups: dict[str, dict[str, float]] = {}
    for (name, who), value in values.items():
        groups.setdefault(name, {})[who] = value
    figure = Figure(layout='constrained', figsize=(9, 1.5 + 0.25 * (len(values) + len(groups))))
    axes = figure.add_subplot()
    position, places = 0.0, []
    shown = set()
    for group in groups.values():
        places.append(position + (len(group) - 1) / 2)
        for who, value in group.items():
            axes.barh(position, value, 0.9, color=COLOURS[who], label=None if who in shown else who)
            behind = dict(facecolor='white', edgecolor='none', pad=0.5)  # hides the line at 1
            axes.text(value, position, f' {value:{digits}}', va='center', fontsize=8, bbox=behind)
            shown.add(who)
            position += 1
        position += 1
    axes.set_yticks(places, list(groups), fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel(label)
    axes.margins(x=0.1, y=0.01)
    if shown:
        figure.legend(loc='outside upper center', ncols=len(shown), frameon=False)
    return figure, axes


def scaling(records: Records) -> Figure:
    """Lines: eager inference time of a backbone against pixels, of Swin-T v1, batch 1."""
    settings = [Setting('backbone', 'inference', *size) for size in SQUARES]
    lines = {OURS: [our_time(records, setting) for setting in settings]}
    for peer in PEERS['backbone', 1]:
        lines[peer] = [_their_time(records, setting, peer) for setting in settings]
    figure = Figure(figsize=(6, 4.5))
    axes = figure.add_subplot(xscale='log', yscale='log')
    for who, times in lines.items():
        points = [(s.height * s.width, t) for s, t in zip(settings, times, strict=True) if t is not None]
        if points:
            axes.plot(*zip(*points, strict=True), 'o-', color=COLOURS[who], label=who)
    axes.set_xticks([s.height * s.width for s in settings], [f'{s.height}$^2$' for s in settings])
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(StrMethodFormatter('{x:g}'))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_formatter(NullFormatter())
    axes.set_xlabel('pixels')
    axes.set_ylabel('seconds')
    axes.set_title('Swin-T backbone, inference, batch 1, eager')
    axes.grid(which='both', alpha=0.3)
    if axes.lines:
        axes.legend()
    return figure


def _their_time(records: Records, setting: Setting, peer: str) -> float | None:
    record = records.get(('time', setting.name, peer))
    return None if record is None else fastest(record, peer, ('eager',))
