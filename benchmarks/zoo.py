"""Every config of mmdet's and mmseg's zoos on tiny inputs: ``make zoo``, or ``python -m benchmarks.zoo``.

Each config is built, takes one training step and predicts once: with its own backbone, with
``--backbone swin_t``, and, where it has a Swin of the host, with ``--backbone ours``. Nothing is downloaded,
and no weights are loaded. Configs with the same model share a result. Results are kept line by line, so the
same command goes on where it was stopped.
"""

import argparse
import hashlib
import importlib
import json
import multiprocessing
import os
import re
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from swin_dense import hosts
from swin_dense.console.progress import track

hosts.prepare()

import torch  # noqa: E402
from mmengine.config import Config  # noqa: E402

from benchmarks import zoo_steps  # noqa: E402
from benchmarks.zoo_language import write_bert  # noqa: E402
from swin_dense.config.backbone import replace  # noqa: E402
from swin_dense.errors import UserError  # noqa: E402
from swin_dense.hosts.configs import stock_path, stock_root  # noqa: E402

HOSTS = ('mmdet', 'mmseg')
WAYS = ('own', 'swin_t', 'ours')
STEPS = ('load', 'build', 'loss', 'predict')
LIMIT = 600  # seconds for one config
Result = dict[str, Any]


def names() -> Iterator[str]:
    """All configs of both hosts that are no bases, as ``mmdet::FILE``."""
    for host in HOSTS:
        root = stock_root(host)
        for file in sorted(root.rglob('*.py')):
            if '_base_' not in file.parts:
                yield f'{host}::{file.relative_to(root).as_posix()}'


def key_of(config: Config, way: str) -> str:
    """The same for configs with the same model."""
    text = json.dumps([config.get('default_scope'), config.get('model')], sort_keys=True, default=str)
    return f'{way} {hashlib.sha256(text.encode()).hexdigest()[:16]}'


def attempt(name: str, way: str, bert: Path) -> Result:
    """The steps that a config took, and the first that failed; ``bert``: a folder with a language model.

    A model that cannot be trained may still predict.
    """
    result: Result = {'config': name, 'way': way, 'passed': []}
    try:
        config = Config.fromfile(stock_path(name))
        if 'model' not in config:
            raise UserError('the file is a base of others: it has no model')
        result['key'] = key_of(config, way)
        if way != 'own':
            config = replace(config, way).config
        result['passed'].append('load')
        os.chdir(stock_root(name.partition('::')[0]).parent)  # some name others as configs/...
        tried = zoo_steps.build(config, bert)
        result['passed'].append('build')
    except UserError as error:
        return result | {'failed': 'load', 'refused': str(error)}
    except BaseException as error:
        return result | {'failed': STEPS[len(result['passed'])], 'error': _described(error)}
    for step in (zoo_steps.loss, zoo_steps.predict):
        try:
            step(tried)
            result['passed'].append(step.__name__)
        except BaseException as error:
            result = {'failed': step.__name__, 'error': _described(error)} | result
    return result


def _described(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    place = next((f for f in reversed(frames) if '/mm' in f.filename), frames[-1])
    file = '/'.join(Path(place.filename).parts[-4:])
    return f'{type(error).__name__}: {str(error)[:200]} ({file}:{place.lineno})'


def in_a_process(name: str, way: str, bert: Path) -> Result:
    """``attempt`` in a fork: a config that hangs or crashes ends alone."""
    context = multiprocessing.get_context('fork')
    receiving, sending = context.Pipe(duplex=False)

    def child() -> None:
        with Path(os.devnull).open('w') as nowhere:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
        sending.send(attempt(name, way, bert))

    process = context.Process(target=child)
    process.start()
    sending.close()
    result: Result = {'config': name, 'way': way, 'passed': [], 'failed': 'load', 'error': 'the process died'}
    try:
        if receiving.poll(LIMIT):
            result = receiving.recv()
        else:
            result['error'] = f'not done after {LIMIT} s'
    except EOFError:
        pass
    process.kill()
    process.join()
    return result


def sweep(wanted: list[tuple[str, str]], path: Path) -> None:
    """Try what has no result yet."""
    done = {(result['config'], result['way']): result for result in read(path)}
    seen = {result['key']: result for result in done.values() if 'key' in result}
    left = [pair for pair in wanted if pair not in done]
    bert = write_bert(path.parent.resolve() / 'bert')
    with path.open('a') as file:
        for name, way in track(left, len(left), 'zoo'):
            try:
                key = key_of(Config.fromfile(stock_path(name)), way)
            except Exception:  # a config is a program: ``attempt`` tells what it raises
                key = ''
            result = {**seen[key], 'config': name} if key in seen else in_a_process(name, way, bert)
            if 'key' in result:
                seen[result['key']] = result
            file.write(json.dumps(result) + '\n')
            file.flush()


def read(path: Path) -> list[Result]:
    """The results so far."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def table(results: list[Result]) -> str:
    """Markdown: how many take each step, and each failure with its reason."""
    lines = [_row('host', 'backbone', 'configs', 'replaceable', *STEPS[1:]), _row(*['---'] * 7)]
    for host in HOSTS:
        for way in WAYS:
            rows = [r for r in results if r['way'] == way and r['config'].startswith(host)]
            taken = [r for r in rows if 'refused' not in r]
            counts = [sum(step in r['passed'] for r in taken) for step in STEPS[1:]]
            if rows:
                lines.append(_row(host, way, len(rows), len(taken), *counts))
    lines += ['', _row('backbone', 'configs', 'step', 'reason'), _row(*['---'] * 4)]
    failed = [r for r in results if _reason(r)]
    # a config's own name tells no kinds of failures apart
    kinds = [(r, re.sub(r'config \S+\.py', 'the config', _reason(r))) for r in failed]
    groups = Counter((r['way'], r['failed'], reason) for r, reason in kinds)
    for (way, step, reason), count in groups.most_common():
        example = next(r['config'] for r, other in kinds if other == reason)
        lines.append(_row(way, f'{count}, such as `{example}`', step, reason.replace('|', '/')))
    return '\n'.join(lines) + '\n'


def _reason(result: Result) -> str:
    """Why a config stopped, without the folders of this machine."""
    text = ' '.join((result.get('error') or result.get('refused') or '').split())
    return re.sub(r'\S*/\.mim/configs/', '', text).removeprefix('--backbone swin_t: ')


def _row(*cells: object) -> str:
    return f'| {" | ".join(map(str, cells))} |'


def main() -> None:
    parser = argparse.ArgumentParser(description="Every config of the hosts' zoos on tiny inputs.")
    parser.add_argument('--out', type=Path, default=Path('work_dirs/zoo'), help='folder (work_dirs/zoo)')
    parser.add_argument('--only', default='', metavar='TEXT', help='configs with this in their name')
    parser.add_argument('--one-a-family', action='store_true', help='the first config of each folder')
    parser.add_argument('--ways', nargs='+', choices=WAYS, default=WAYS)
    args = parser.parse_args()
    torch.set_num_threads(1)  # before a fork
    for host in HOSTS:
        importlib.import_module(f'{host}.utils').register_all_modules(init_default_scope=False)
    args.out.mkdir(parents=True, exist_ok=True)
    chosen = [name for name in names() if args.only in name]
    if args.one_a_family:
        chosen = list({name.rpartition('/')[0]: name for name in reversed(chosen)}.values())[::-1]
    wanted = [(name, way) for way in args.ways for name in chosen if way != 'ours' or 'swin' in name]
    sweep(wanted, args.out / 'results.jsonl')
    pairs = set(wanted)
    results = [r for r in read(args.out / 'results.jsonl') if (r['config'], r['way']) in pairs]
    (args.out / 'zoo.json').write_text(json.dumps(results, indent=1))
    (args.out / 'zoo.md').write_text(table(results))
    print(table(results))


if __name__ == '__main__':
    main()
