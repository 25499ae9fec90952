"""Results as ``pair.py`` returns them, with figures from which every line of the report follows."""

from benchmarks.settings import OURS, Job

# how many times longer than ours each takes; ours takes a microsecond a pixel
SLOWER = {'mmdet': 2.0, 'mmseg': 2.5, 'timm': 1.6, 'torchvision': 3.0, 'transformers': 1.5, 'mmpretrain': 4.0}
COMPILED = 0.8  # of the eager time, for peers; ours gains nothing
RATE = 1e11
SHARE = 0.7
MEMORY = {OURS: 100 * 2**20, 'mmdet': 400 * 2**20}
OTHERS_MEMORY = 250 * 2**20


def result_of(job: Job) -> dict:
    """What the process of a job would have said."""
    setting = job.setting
    training = setting.phase == 'training'
    if job.kind == 'memory':
        bytes_ = MEMORY.get(job.who, OTHERS_MEMORY)
        return {'peak': bytes_, 'saved': bytes_ // 2 if training else None}
    seconds = 1e-6 * setting.height * setting.width * setting.batch
    times = {}
    for mode in job.modes:
        theirs = seconds * SLOWER[job.who] * (1 if mode == 'eager' else COMPILED)
        for who, median in ((OURS, seconds), (job.who, theirs)):
            times[f'{who} {mode}'] = {'low': 0.9 * median, 'median': median, 'high': 1.1 * median}
    return {
        'times': times,
        'samples': {name: [value['median']] for name, value in times.items()},
        'left_out': {},
        'difference': 0.3 if job.who == 'timm' else 2e-7,
        'objects': None,
        'flops': SHARE * RATE * seconds if setting.model == 'backbone' else None,
        'product_rates': [0.9 * RATE, RATE],
        'others': 0.01,
    }


def record_of(job: Job) -> dict:
    """The same as it is saved."""
    return {'job': job.as_dict(), **result_of(job)}
