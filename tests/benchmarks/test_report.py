"""Tables and plots from made-up results; and the suites that they are for."""

from pathlib import Path

import cv2
import pytest

from benchmarks import plots, report, settings
from benchmarks.settings import OURS, PEERS, Job, Setting
from tests.benchmarks.made_up import COMPILED, SHARE, SLOWER, record_of

NAMES = tuple(dict.fromkeys(peer for peers in PEERS.values() for peer in peers))


def records_of(listed: list[Setting], modes: tuple[str, ...] = ('eager', 'compiled')) -> report.Records:
    return report.by_job(map(record_of, settings.jobs(listed, NAMES, 'cpu', 'fp32', modes, 3)))


@pytest.fixture(scope='module')
def records() -> report.Records:
    return records_of(settings.headline('cpu'))


def test_headline_has_every_line_of_the_targets(records: report.Records):
    lines = report.headline(settings.targets('cpu', 'fp32'), records)
    rows = [line.strip('| ').split(' | ') for line in lines[2:]]
    assert len(rows) == len(settings.HEADLINE['cpu'][1])
    by_title = {row[0]: row[1:] for row in rows}
    # the fastest is compiled transformers
    fastest = f'{SLOWER["transformers"] * COMPILED:.2f}x (transformers)'
    assert by_title['backbone inference, 800x1333, vs the fastest peer'] == [fastest, '>= 1.40x', 'no']
    assert by_title['UPerNet inference, 512x512, vs mmseg'] == ['2.00x (mmseg)', '>= 1.50x', 'yes']
    assert by_title['share of the matrix-product peak, 800x1333'] == [f'{SHARE:.0%}', '>= 80%', 'no']
    assert by_title['peak memory of inference, 800x1333, vs mmdet'] == ['0.25x (mmdet)', '<= 0.35x', 'yes']
    assert by_title['saved activations of training, vs mmdet'] == ['0.25x (mmdet)', '<= 0.60x', 'yes']
    exponent = by_title['exponent of inference time in pixels, 512^2 to 2048^2']
    assert exponent == ['1.00', '<= 1.05', 'yes']


def test_only_the_modes_of_a_target_count():
    listed = settings.headline('cuda')
    jobs = settings.jobs(listed, NAMES, 'cuda', 'bf16', settings.MODES['cuda'], 3)
    lines = report.headline(settings.targets('cuda', 'bf16'), report.by_job(map(record_of, jobs)))
    by_title = {line.split(' | ')[0].strip('| '): line.split(' | ')[1] for line in lines}
    assert by_title['backbone inference, 800x1333, vs mmdet eager'] == '2.00x (mmdet)'
    assert by_title['backbone inference, 800x1333, vs the best compiled'] == '1.20x (transformers)'


def test_targets_are_for_one_precision():
    assert all(target.value is None for target in settings.targets('cpu', 'bf16'))
    assert report.headline(settings.targets('cpu', 'bf16'), {})[2].endswith('| not measured | - |  |')


def test_what_is_missing_is_said_to_be_missing():
    lines = report.headline(settings.targets('cpu', 'fp32'), {})[2:]
    assert len(lines) == len(settings.HEADLINE['cpu'][1])
    assert all('| not measured |' in line for line in lines)


def test_a_peer_that_was_not_measured_is_named():
    setting = settings.headline('cpu')[0]
    some = report.by_job(
        map(record_of, settings.jobs([setting], ['mmdet', 'timm'], 'cpu', 'fp32', ('eager',), 3))
    )
    line = report.headline(settings.targets('cpu', 'fp32'), some)[2]
    assert '| 1.60x (timm, without mmseg, torchvision, transformers) |' in line


def test_document(records: report.Records):
    job = Job('time', Setting('upernet', 'inference', 512, 512), 'mmseg', modes=('eager', 'compiled'))
    record = record_of(job)
    del record['times']['mmseg compiled']
    record['left_out'] = {'mmseg compiled': 'RuntimeError: no kernel'}
    changed = {**records, ('time', job.setting.name, 'mmseg'): record}
    text = report.document(
        {'processor': 'a fast one'}, settings.targets('cpu', 'fp32'), changed, ['timm: absent']
    )
    assert '- processor: a fast one\n' in text
    assert '- matrix products: 90 to 100 GFLOP/s\n' in text
    assert '- timm: absent\n' in text
    assert f'- {job.setting.name}, mmseg compiled: RuntimeError: no kernel\n' in text
    row = next(line for line in text.splitlines() if line.startswith(f'| {job.setting.name} | mmseg |'))
    # ours and the peer, eager and compiled, in ms with quartiles; then speed-up, share, difference, others
    assert row == (
        f'| {job.setting.name} | mmseg | 262 (236 to 288) | 655 (590 to 721) | 262 (236 to 288) | left out | '
        '2.50x | - | 2e-07 | 1.0% |'
    )
    timm = next(line for line in text.splitlines() if '| timm |' in line)
    assert '3e-01 (other semantics)' in timm
    saved = next(line for line in text.splitlines() if 'training' in line and '| mmdet | 400 |' in line)
    assert saved.endswith('| mmdet | 400 | 0.25x | 200 | 0.25x |')


def test_every_table_is_rectangular(records: report.Records):
    for lines in (report.times_table(records), report.memory_table(records)):
        assert len({line.count('|') for line in lines}) == 1


def test_plots(records: report.Records, tmp_path: Path):
    paths = plots.save(records, tmp_path)
    assert [path.name for path in paths] == ['speed.png', 'scaling.png', 'memory.png']
    for path in paths:
        picture = cv2.imread(str(path))
        assert min(picture.shape[:2]) > 200
        assert picture.std() > 10


def test_plots_show_the_figures(records: report.Records):
    bars = [bar.get_width() for bar in plots.speed(records).axes[0].patches]
    assert len(bars) == sum(kind == 'time' for kind, _, _ in records)
    assert min(bars) == pytest.approx(SLOWER['transformers'] * COMPILED)
    lines = {line.get_label(): line.get_xydata() for line in plots.scaling(records).axes[0].lines}
    assert set(lines) == {OURS, *PEERS['backbone', 1]}
    assert lines[OURS].shape == (4, 2)
    assert lines['mmdet'][-1].tolist() == pytest.approx([2048**2, 2 * 1e-6 * 2048**2])


@pytest.mark.parametrize('kept', [slice(0), slice(1)])
def test_plots_of_almost_nothing(kept: slice, records: report.Records, tmp_path: Path):
    plots.save(dict(list(records.items())[kept]), tmp_path)


# suites


def test_names_identify_settings():
    for listed in (settings.full(), settings.headline('cpu'), settings.headline('cuda')):
        assert len({setting.name for setting in listed}) == len(listed)


def test_full_is_the_whole_grid():
    listed = settings.full()
    assert {(s.height, s.width) for s in listed} == {
        (512, 512), (800, 1333), (1024, 1024), (1536, 1536), (2048, 2048)
    }  # fmt: skip
    assert {s.variant for s in listed} == {'T', 'S', 'B'}
    assert {(s.model, s.version) for s in listed} == set(PEERS)
    assert {(s.phase, s.batch) for s in listed} == {(p, b) for p in ('inference', 'training') for b in (1, 2)}
    assert set(settings.headline('cpu')) - set(listed) == {
        s for s in settings.headline('cpu') if s.eager_only
    }


def test_jobs_leave_absent_peers_out():
    listed = list(settings.jobs(settings.headline('cpu'), ['timm'], 'cpu', 'fp32', ('eager',), 3))
    assert {job.who for job in listed} == {OURS, 'timm'}
    assert {job.kind for job in listed} == {'time', 'memory'}


def test_jobs_survive_json():
    for job in settings.jobs(settings.headline('cpu'), NAMES, 'cpu', 'fp32', ('eager', 'compiled'), 3):
        assert Job.from_dict(job.as_dict()) == job
