"""Every config of mmdet's and mmseg's zoos on tiny inputs: ``make zoo``, or ``python -m benchmarks.zoo``.

Each config is built, takes one training step and predicts once: with its own backbone, with ``--backbone swin_t``,
and, where it has a Swin of the host, with ``--backbone ours``. Nothing is downloaded and no weights are loaded. A
config whose model was seen before has its result. Results are kept line by line: the same command goes on.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from swin_dense import hosts
from swin_dense.console.terminal import progress

hosts.prepare()

import torch  # noqa: E402
from mmengine.config import Config  # noqa: E402

from benchmarks import zoo_steps  # noqa: E402
from swin_dense.config.backbone import replace  # noqa: E402
from swin_dense.errors import UserError  # noqa: E402
from swin_dense.hosts.configs import stock_path  # noqa: E402

WAYS = ('own', 'swin_t', 'ours')
STEPS = ('load', 'build', 'loss', 'predict')
LIMIT = 240  # seconds for one config


def names() -> Iterator[str]:
    """All configs of both hosts that are no bases, as ``mmdet::FILE``."""
    for host, example in (('mmdet', 'retinanet/retinanet_r50_fpn_1x_coco.py'), ('mmseg', 'fcn/metafile.yaml')):
        root = stock_path(f'{host}::{example}').parents[1]
        for file in sorted(root.rglob('*.py')):
            if '_base_' not in file.parts:
                yield f'{host}::{file.relative_to(root).as_posix()}'


def loaded(name: str, way: str) -> Config:
    """The config, with the backbone of ``way``.

    Raises:
        UserError: the backbone cannot be replaced.
        Exception: whatever a config file raises.
    """
    config = Config.fromfile(stock_path(name))
    return config if way == 'own' else replace(config, way).config


def key_of(config: Config, way: str) -> str:
    """The same for configs with the same model."""
    text = json.dumps([config.get('default_scope'), config.get('model')], sort_keys=True, default=str)
    return f'{way} {hashlib.sha256(text.encode()).hexdigest()[:16]}'


def attempt(name: str, way: str) -> dict[str, Any]:
    """The steps that a config took, and the first error."""
    result: dict[str, Any] = {'config': name, 'way': way, 'passed': []}
    try:
        config = Config.fromfile(stock_path(name))
        result['key'] = key_of(config, way)
        if way != 'own':
            config = replace(config, way).config
        result['passed'].append('load')
        for step in zoo_steps.steps(config):
            result['passed'].append(step)
    except UserError as error:
        result['refused'] = str(error)
    except BaseException as error:
        frames = traceback.extract_tb(error.__traceback__)
        place = next((f for f in reversed(frames) if '/mm' in f.filename), frames[-1])
        file = '/'.join(Path(place.filename).parts[-4:])
        result['error'] = f'{type(error).__name__}: {str(error)[:200]} ({file}:{place.lineno})'
    return result


def in_a_process(name: str, way: str) -> dict[str, Any]:
    """``attempt`` in a fork: what hangs or crashes takes nothing with it."""
    context = multiprocessing.get_context('fork')
    receiving, sending = context.Pipe(duplex=False)

    def child() -> None:
        with open(os.devnull, 'w') as nowhere:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
        sending.send(attempt(name, way))

    process = context.Process(target=child)
    process.start()
    sending.close()
    result: dict[str, Any] = {'config': name, 'way': way, 'passed': [], 'error': 'the process died'}
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
    done = {(r['config'], r['way']): r for r in read(path)}
    seen = {r['key']: r for r in done.values() if 'key' in r}
    left = [pair for pair in wanted if pair not in done]
    with path.open('a') as file, progress('zoo', len(left)) as bar:
        for name, way in left:
            try:
                key = key_of(Config.fromfile(stock_path(name)), way)
            except Exception:
                key = ''
            result = {**seen[key], 'config': name} if key in seen else in_a_process(name, way)
            if 'key' in result:
                seen[result['key']] = result
            file.write(json.dumps(result) + '\n')
            file.flush()
            bar.advance()


def read(path: Path) -> list[dict[str, Any]]:
    """The results so far."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def table(results: list[dict[str, Any]]) -> str:
    """Markdown: how many take each step, and each failure with its reason."""
    lines = ['| host | backbone | configs | replaceable | built | loss | prediction |', '|---|---|---|---|---|---|---|']
    for host in ('mmdet', 'mmseg'):
        for way in WAYS:
            rows = [r for r in results if r['way'] == way and r['config'].startswith(host)]
            taken = [r for r in rows if 'refused' not in r]
            counts = [sum(step in r['passed'] for r in taken) for step in STEPS[1:]]
            if rows:
                lines.append(f'| {host} | {way} | {len(rows)} | {len(taken)} | ' + ' | '.join(map(str, counts)) + ' |')
    lines += ['', '| backbone | configs | step | reason |', '|---|---|---|---|']
    groups = Counter(
        (r['way'], STEPS[len(r['passed'])] if 'error' in r else 'replace', r.get('error') or r.get('refused'))
        for r in results
        if 'error' in r or 'refused' in r
    )
    for (way, step, reason), count in groups.most_common():
        example = next(r['config'] for r in results if (r.get('error') or r.get('refused')) == reason)
        lines.append(f'| {way} | {count}, such as `{example}` | {step} | {str(reason).replace("|", "/")} |')
    return '\n'.join(lines) + '\n'


def main() -> None:
    parser = argparse.ArgumentParser(description="Every config of the hosts' zoos on tiny inputs.")
    parser.add_argument('--out', type=Path, default=Path('work_dirs/zoo'), help='folder (work_dirs/zoo)')
    parser.add_argument('--only', default='', metavar='TEXT', help='configs with this in their name')
    parser.add_argument('--ways', nargs='+', choices=WAYS, default=WAYS)
    args = parser.parse_args()
    torch.set_num_threads(1)  # before a fork
    args.out.mkdir(parents=True, exist_ok=True)
    chosen = [name for name in names() if args.only in name]
    wanted = [(name, way) for way in args.ways for name in chosen if way != 'ours' or 'swin' in name]
    sweep(wanted, args.out / 'results.jsonl')
    results = [r for r in read(args.out / 'results.jsonl') if (r['config'], r['way']) in set(wanted)]
    (args.out / 'zoo.json').write_text(json.dumps(results, indent=1))
    (args.out / 'zoo.md').write_text(table(results))
    print(table(results))


if __name__ == '__main__':
    main()
