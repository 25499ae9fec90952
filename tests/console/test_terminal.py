"""The terminal shows what we print; what the hosts print goes to the log."""

import errno
import io
import itertools
import logging
import sys
import warnings
from collections import OrderedDict
from pathlib import Path

import pytest
from mmengine.logging import MMLogger
from rich.console import Console

from swin_dense.console import progress, terminal

NUMBER = itertools.count()
ESCAPE = '\x1b'


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What is printed on the terminal, which is none."""
    buffer = io.StringIO()
    monkeypatch.setattr(terminal, 'console', Console(file=buffer, highlight=False, width=160))
    return buffer


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """The log file of the current run."""
    path = tmp_path / 'run.log'
    logger = MMLogger.get_instance(f'terminal {next(NUMBER)}', log_file=str(path))
    for handler in list(logger.handlers):
        if type(handler) is logging.StreamHandler:
            logger.removeHandler(handler)  # as our runner does
    return path


def test_plain_lines_off_a_terminal(shown: io.StringIO):
    terminal.say('[bold]epoch 1/3[/bold]  10/20')
    terminal.show_header({'config': 'a.py', 'model': 'MaskRCNN'})
    terminal.show_metrics('evaluation', {'bbox_mAP': 0.5, 'segm_mAP': None})
    assert ESCAPE not in shown.getvalue()
    assert shown.getvalue().startswith('[bold]epoch 1/3[/bold]  10/20\n')


def test_a_long_line_stays_one_line(shown: io.StringIO):
    text = 'loss 0.123  ' * 40
    terminal.say(text)
    assert shown.getvalue() == f'{text}\n'


def test_the_header_shows_names_and_values_as_they_are(shown: io.StringIO):
    rows = {'config': 'configs/[red]a.py', 'train': '6 images, /data/[/]x[1]/train.json'}
    terminal.show_header(rows)
    lines = shown.getvalue().splitlines()
    assert [line.rstrip().split(maxsplit=1) for line in lines] == [
        [name, value] for name, value in rows.items()
    ]


def test_a_table_of_detection_metrics(shown: io.StringIO):
    terminal.show_metrics(
        'after [3]', {'bbox_mAP': 0.12345, 'bbox_mAP_s': None, 'segm_mAP': 1.0, 'segm_mAP_s': 0}
    )
    text = shown.getvalue()
    for part in ('after [3]', 'mAP', 'mAP_s', '0.123', '1.000', '0.000', '-', 'box', 'mask'):
        assert part in text
    assert '0.1234' not in text


def test_a_table_of_segmentation_metrics(shown: io.StringIO):
    terminal.show_metrics('evaluation', {'mIoU': 0.5, 'aAcc': 0.75})
    for part in ('evaluation', 'mIoU', 'aAcc', '0.500', '0.750'):
        assert part in shown.getvalue()


def test_what_hosts_print_goes_to_the_log(log: Path, shown: io.StringIO, capfd: pytest.CaptureFixture):
    with terminal.quiet_hosts():
        print('a print')
        print('a line', 'in', 'parts', end='')
        print(' and its end\n\nanother')
        sys.stderr.write('an error\n')
        warnings.warn('a warning', stacklevel=1)
        terminal.say('for the person')
        assert not sys.stdout.isatty()
    text = log.read_text()
    for line in ('a print', 'a line in parts and its end', 'another', 'an error', 'UserWarning: a warning'):
        assert text.count(line) == 1, line
    assert 'for the person' not in text
    assert shown.getvalue() == 'for the person\n'
    assert capfd.readouterr() == ('', '')


def test_afterwards_all_is_as_before(log: Path, capsys: pytest.CaptureFixture):
    streams, handlers = (sys.stdout, sys.stderr), logging.getLogger('py.warnings').handlers
    with pytest.raises(KeyError), terminal.quiet_hosts():
        raise KeyError('the run failed')
    assert (sys.stdout, sys.stderr) == streams
    assert logging.getLogger('py.warnings').handlers == handlers
    print('seen again')
    with pytest.warns(UserWarning, match='seen too'):
        warnings.warn('seen too', stacklevel=1)
    assert capsys.readouterr().out == 'seen again\n'
    assert not log.exists() or 'seen' not in log.read_text()


def test_a_print_before_there_is_a_log(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture):
    monkeypatch.setattr(MMLogger, '_instance_dict', OrderedDict())
    with terminal.quiet_hosts():
        print('early')
        warnings.warn('early too', stacklevel=1)
    assert capfd.readouterr() == ('', '')


def test_other_processes_show_nothing(shown: io.StringIO, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(terminal, 'is_main_process', lambda: False)
    terminal.say('a line')
    terminal.show_header({'config': 'a.py'})
    terminal.show_metrics('evaluation', {'mIoU': 0.5})
    assert shown.getvalue() == ''


EVIL = 'x\x1b[31m\x07\x9b\udc80y'
HARMLESS = r'x\x1b[31m\x07\x9b\udc80y'


def test_nothing_reaches_the_terminal_raw(monkeypatch: pytest.MonkeyPatch):
    """Through a stream that refuses lone surrogates, as sys.stdout does."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding='utf-8', errors='strict')
    monkeypatch.setattr(terminal, 'console', Console(file=stream, highlight=False, width=160))
    terminal.say(EVIL)
    terminal.warn(EVIL)
    terminal.show_header({EVIL: EVIL})
    terminal.show_metrics(EVIL, {EVIL: 0.5})
    terminal.show_rows(EVIL, [{'name': EVIL, EVIL: 1}])
    assert list(progress.track([1], 1, EVIL)) == [1]
    stream.flush()
    text = stream.buffer.getvalue().decode()
    assert text.count(HARMLESS) == 10
    assert not {'\x1b', '\x07', '\x9b'} & {*text}


def test_a_bar_names_what_is_done_as_it_is(monkeypatch: pytest.MonkeyPatch):
    """No markup: '[/]' would be an error."""
    buffer = io.StringIO()
    console = Console(file=buffer, force_terminal=True, width=160, color_system=None)
    monkeypatch.setattr(terminal, 'console', console)
    assert list(progress.track([1, 2], 2, '[/] [bold]\x9b.mp4')) == [1, 2]
    assert r'[/] [bold]\x9b.mp4' in buffer.getvalue()


def test_names_go_to_the_log_escaped(log: Path, monkeypatch: pytest.MonkeyPatch):
    # what pytest captures of the log goes into its report, which holds no lone surrogate
    monkeypatch.setattr(logging.getLogger('py.warnings'), 'propagate', False)
    with terminal.quiet_hosts():
        print(EVIL)
        warnings.warn(EVIL, stacklevel=1)
    assert log.read_text().count(HARMLESS) == 2


class Full(io.StringIO):
    """A file on a full disk."""

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, 'No space left on device')


def test_a_log_that_cannot_be_written(log: Path, shown: io.StringIO, monkeypatch: pytest.MonkeyPatch):
    """It is told once, and the run goes on: logging's own report of it would lead to the log again."""
    logger = MMLogger.get_current_instance()
    (handler,) = logger.handlers
    monkeypatch.setattr(handler, 'stream', Full())
    with terminal.quiet_hosts():
        print('a print')
        logger.info('a line of a host')
        sys.stderr.write('an error\n')
        warnings.warn('a warning', stacklevel=1)
        terminal.say('the run goes on')
    assert shown.getvalue() == (
        'warning: the log cannot be written (No space left on device): the run goes on without it\n'
        'the run goes on\n'
    )


def test_a_handler_that_prints_its_own_failure(log: Path, shown: io.StringIO):
    class Loud(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            print('cannot write', record.getMessage())

    MMLogger.get_current_instance().addHandler(Loud())
    with terminal.quiet_hosts():
        print('a print')
        print('another')
    text = log.read_text()
    assert text.count('a print') == text.count('another') == 1


def test_a_terminal_that_cannot_be_written_ends_nothing(monkeypatch: pytest.MonkeyPatch):
    console = Console(file=Full(), width=160)
    monkeypatch.setattr(terminal, 'console', console)
    terminal.say('a line')
    terminal.warn('a line')
    terminal.show_header({'config': 'a.py'})
    terminal.show_metrics('evaluation', {'mIoU': 0.5})
