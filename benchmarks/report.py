"""What the measurements say: the headline table, all of them as tables, in Markdown."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from benchmarks.measure import exponent
from benchmarks.settings import OURS, Job, Setting, Target

# records by kind of job, name of the setting, and whose they are
Records = Mapping[tuple[str, str, str], dict]
MEBI = 2**20
# what a difference between outputs of the same semantics stays below in single precision
ROUNDING = 1e-4


class Reached(NamedTuple):
    """A figure, whose it is compared with, and whose it should have been compared with as well."""

    value: float
    peer: str = ''
    missing: tuple[str, ...] = ()

    @property
    def about(self) -> str:
        """The peers, for people."""
        without = f', without {", ".join(self.missing)}' if self.missing else ''
        return f' ({self.peer}{without})' if self.peer else ''


def by_job(results: Iterable[dict]) -> Records:
    """Results as they are saved, each with its job -> records."""
    jobs = ((Job.from_dict(result['job']), result) for result in results)
    return {(job.kind, job.setting.name, job.who): result for job, result in jobs}


def fastest(record: dict, who: str, modes: Sequence[str] = ()) -> float | None:
    """The shortest median of a candidate's ways to run, seconds; None if it has none of ``modes``."""
    medians = [
        times['median']
        for name, times in record['times'].items()
        if name.startswith(f'{who} ') and (not modes or name.split()[1] in modes)
    ]
    return min(medians, default=None)


def speed_up(record: dict, modes: Sequence[str] = ()) -> float | None:
    """The peer's time over ours, the best way of each; ``modes`` restricts the peer's."""
    theirs = fastest(record, record['job']['who'], modes)
    return None if theirs is None else theirs / fastest(record, OURS)


def share(record: dict) -> float | None:
    """FLOP/s of our backbone over those of a matrix product in the same process."""
    if record['flops'] is None:
        return None
    return record['flops'] / fastest(record, OURS) / max(record['product_rates'])


def timed(records: Records, setting: Setting) -> list[dict]:
    """The records of a setting's times, with all peers."""
    return [record for (kind, name, _), record in records.items() if (kind, name) == ('time', setting.name)]


def memory_ratio(records: Records, setting: Setting, peer: str, what: str) -> float | None:
    """Our memory over the peer's, ``what`` being ``'peak'`` or ``'saved'``."""
    mine, theirs = (records.get(('memory', setting.name, who), {}).get(what) for who in (OURS, peer))
    return None if mine is None or not theirs else mine / theirs


# the headline


def reached(target: Target, records: Records) -> Reached | None:
    """The figure of a line of the headline table, None if it was not measured."""
    return QUANTITIES[target.quantity](target, records)


def _speed(target: Target, records: Records) -> Reached | None:
    wanted = target.against or target.settings[0].compared
    pairs = {pair['job']['who']: pair for pair in timed(records, target.settings[0])}
    values = {who: speed_up(pairs[who], target.modes) for who in wanted if who in pairs}
    known = {who: value for who, value in values.items() if value is not None}
    if not known:
        return None
    fastest_peer = min(known, key=known.get)
    return Reached(known[fastest_peer], fastest_peer, tuple(who for who in wanted if who not in known))


def _share(target: Target, records: Records) -> Reached | None:
    values = [share(pair) for pair in timed(records, target.settings[0])]
    return Reached(statistics.median(values)) if values else None


def _memory(target: Target, records: Records) -> Reached | None:
    (peer,) = target.against
    value = memory_ratio(records, target.settings[0], peer, target.quantity)
    return None if value is None else Reached(value, peer)


def our_time(records: Records, setting: Setting, modes: Sequence[str] = ('eager',)) -> float | None:
    """The median over all pairs of our own median, seconds."""
    known = [fastest(pair, OURS, modes) for pair in timed(records, setting)]
    return statistics.median(known) if known else None


def _exponent(target: Target, records: Records) -> Reached | None:
    times = [our_time(records, setting) for setting in target.settings]
    if None in times:
        return None
    return Reached(exponent([setting.height * setting.width for setting in target.settings], times))


QUANTITIES: dict[str, Callable[[Target, Records], Reached | None]] = {
    'speed': _speed,
    'share': _share,
    'peak': _memory,
    'saved': _memory,
    'exponent': _exponent,
}


def headline(targets: Sequence[Target], records: Records) -> list[str]:
    """The lines of the headline table."""
    rows = []
    for target in targets:
        best = reached(target, records)
        sign = '>=' if target.at_least else '<='
        wanted = '-' if target.value is None else f'{sign} {_figure(target, target.value)}'
        if best is None:
            rows.append((target.title, 'not measured', wanted, ''))
            continue
        figure = _figure(target, best.value) + best.about
        rows.append((target.title, figure, wanted, _met(target, best.value)))
    return table(('measurement', 'measured', 'target', 'reached'), rows)


def _met(target: Target, value: float) -> str:
    if target.value is None:
        return ''
    return 'yes' if (value >= target.value if target.at_least else value <= target.value) else 'no'


def _figure(target: Target, value: float) -> str:
    if target.quantity == 'share':
        return f'{value:.0%}'
    return f'{value:.2f}' + ('' if target.quantity == 'exponent' else 'x')


# all measurements


def times_table(records: Records) -> list[str]:
    """Times with quartiles, a line for each pair."""
    pairs = [record for (kind, _, _), record in records.items() if kind == 'time']
    modes = list(dict.fromkeys(mode for pair in pairs for mode in pair['job']['modes']))
    rows = []
    for pair in pairs:
        job = Job.from_dict(pair['job'])
        cells = [_times(pair, who, mode) for mode in modes for who in (OURS, job.who)]
        part = share(pair)
        rows.append((
            job.setting.name, job.who, *cells, f'{speed_up(pair):.2f}x',
            '-' if part is None else f'{part:.0%}', _difference(pair['difference']), f'{pair["others"]:.1%}',
        ))  # fmt: skip
    header = [f'{who} {mode}' for mode in modes for who in (OURS, 'peer')]
    return table(('measurement', 'peer', *header, 'speed-up', 'share of peak', 'difference', 'others'), rows)


def _times(pair: dict, who: str, mode: str) -> str:
    times = pair['times'].get(f'{who} {mode}')
    if times is None:
        return 'left out' if f'{who} {mode}' in pair['left_out'] else '-'
    low, median, high = (1000 * times[key] for key in ('low', 'median', 'high'))
    digits = 2 if median < 10 else 1 if median < 100 else 0
    return f'{median:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})'


def _difference(value: float) -> str:
    return f'{value:.0e}' + ('' if value < ROUNDING else ' (other semantics)')


def memory_table(records: Records) -> list[str]:
    """Peak and saved memory, a line for each model."""
    rows = []
    for (kind, name, who), record in records.items():
        if kind != 'memory':
            continue
        mine = records.get(('memory', name, OURS), {})
        cells = []
        for what in ('peak', 'saved'):
            value, own = record[what], mine.get(what)
            cells.append('-' if value is None else f'{value / MEBI:.0f}')
            cells.append('-' if value in (None, 0) or own is None or who == OURS else f'{own / value:.2f}x')
        rows.append((name, who, *cells))
    return table(('measurement', 'model', 'peak, MiB', 'ours / it', 'saved, MiB', 'ours / it'), rows)


def left_out(records: Records) -> list[str]:
    """A line for everything that could not be compiled."""
    return [
        f'- {name}, {candidate}: {reason}'
        for (kind, name, _), record in records.items()
        if kind == 'time'
        for candidate, reason in record['left_out'].items()
    ]


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table."""
    return [f'| {" | ".join(row)} |' for row in (header, ['---'] * len(header), *rows)]


def document(
    environment: Mapping[str, str], targets: Sequence[Target], records: Records, notes: Sequence[str]
) -> str:
    """The whole report.

    Args:
        environment: what the measurements were made with, and on.
        targets: lines of the headline table.
        records: the measurements.
        notes: lines about what was left out.
    """
    rates = [rate for (kind, _, _), r in records.items() if kind == 'time' for rate in r['product_rates']]
    environment = dict(environment)
    if rates:
        environment['matrix products'] = f'{min(rates) / 1e9:.0f} to {max(rates) / 1e9:.0f} GFLOP/s'
    lines = ['# Benchmarks', '', *(f'- {name}: {value}' for name, value in environment.items()), '']
    lines += ['## Headline', '', *headline(targets, records), '']
    lines += [
        'Speed: the median time of the fastest peer over ours, each the best of its ways to run, interleaved '
        'in one process. Memory: ours over theirs, each in a process of its own.',
        '',
        '## Times',
        '',
        'Milliseconds: median (lower to upper quartile). Difference: the largest between the outputs of the '
        'two, over the largest output; the weights are the same. Share of peak: FLOPs of our backbone (two '
        'for each multiply-add; those of padded windows count) over the time, over the rate of a large '
        'matrix product in the same process. Others: the share of the CPU time, while this was timed, that '
        'was not ours.',
        '',
        *times_table(records),
        '',
        '## Memory',
        '',
        'Peak: by how much a call raises it, outputs and gradients included. Saved: what the forward pass of '
        'training keeps for the backward pass, beside parameters and buffers.',
        '',
        *memory_table(records),
        '',
    ]
    missing = [*(f'- {note}' for note in notes), *left_out(records)]
    return '\n'.join([*lines, *(['## Left out', '', *missing, ''] if missing else [])])
