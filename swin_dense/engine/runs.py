"""Whole runs: a config made ready from the command line, training, testing, scoring."""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import is_main_process

from swin_dense.data import ade20k, coco
from swin_dense.engine import config as configs
from swin_dense.engine.hooks import HeaderHook, MetricsHook, PictureHook, ProgressHook
from swin_dense.engine.launch import start_processes
from swin_dense.engine.runner import Runner
from swin_dense.errors import UserError
from swin_dense.report import terminal
from swin_dense.report.metrics import as_fractions, save


def ready_config(
    path: str,
    options: Sequence[str] = (),
    data: Path | None = None,
    classes: Path | None = None,
    work_dir: str | None = None,
) -> Config:
    """The config of a run, checked: every path in it exists, and classes and heads agree.

    Args:
        path: config file.
        options: ``KEY=VALUE`` overrides.
        data: root of a COCO or ADE20K folder that replaces every path.
        classes: file with one class name a line (segmentation).
        work_dir: where the run is saved; ``work_dirs/CONFIG`` if None.

    Raises:
        UserError: whatever the user got wrong.
    """
    config = configs.load(path, options)
    config.work_dir = work_dir or config.get('work_dir') or f'work_dirs/{Path(path).stem}'
    if configs.task(config) == 'detection':
        if classes is not None:
            raise UserError('--classes is for segmentation: a COCO annotation file names its classes itself')
        if data is not None:
            coco.point_at(config, data)
        coco.settle_classes(config)
    else:
        if data is not None:
            ade20k.point_at(config, data)
        ade20k.settle_classes(config, data, classes)
    configs.single_process_loaders(config)
    return config


def train(config: Config, launcher: str = 'none') -> None:
    """Train and evaluate; checkpoints, log, metrics and pictures go to ``config.work_dir``."""
    with terminal.quiet_hosts():
        _runner(config, launcher).train()


def test(config: Config, checkpoint: str, launcher: str = 'none', out: Path | None = None) -> dict:
    """Evaluate a checkpoint.

    Args:
        config: as ``ready_config`` returns it.
        checkpoint: path of the weights.
        launcher: 'none', 'pytorch', 'slurm' or 'mpi'.
        out: a COCO JSON file (detection) or a folder of PNG label maps (segmentation) to write.

    Returns:
        The metrics as the host's evaluator returns them.
    """
    config.load_from, config.resume = checkpoint, False
    detection = configs.task(config) == 'detection'
    with tempfile.TemporaryDirectory() as scratch, terminal.quiet_hosts():
        if out is not None and detection:
            coco.save_predictions(config, Path(scratch) / 'predictions')
        elif out is not None:
            ade20k.save_predictions(config, out)
        metrics = _runner(config, launcher).test()
        if out is not None and detection and is_main_process():
            written = [Path(scratch) / f'predictions.{kind}.json' for kind in ('segm', 'bbox')]
            found = [path for path in written if path.is_file()]
            if not found:
                raise UserError(f'--out {out}: the test_evaluator of {config.filename} has no CocoMetric')
            out.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(found[0], out)
    if out is not None:
        terminal.say(f'predictions written to {out}')
    return metrics


def score(
    config_path: str, predictions: Path, data: Path, work_dir: str | None = None
) -> dict[str, float | None]:
    """Score saved COCO predictions, with no model: all 12 values of each kind, as pycocotools does.

    Args:
        config_path: a detection config.
        predictions: a COCO result file with ``bbox`` or ``segmentation`` entries.
        data: root of a COCO folder; its validation annotations are the ground truth.
        work_dir: where ``metrics.json`` goes; ``work_dirs/CONFIG`` if None.
    """
    if configs.task(configs.load(config_path)) != 'detection':
        raise UserError(f'--predictions scores COCO results, but {config_path} is a segmentation config')
    metrics = as_fractions(coco.score(coco.find_annotations(data, 'val'), predictions), 'detection')
    terminal.show_metrics(f'{predictions}', metrics)
    save(metrics, Path(work_dir or f'work_dirs/{Path(config_path).stem}'))
    return metrics


def _runner(config: Config, launcher: str) -> Runner:
    config.launcher = launcher
    start_processes(launcher)
    runner = Runner.from_cfg(config)
    for hook in (HeaderHook(), ProgressHook(), MetricsHook(), PictureHook()):
        runner.register_hook(hook)
    return runner
