"""A user's mistake is one line on stderr and an exit status."""

import pytest
from torch.utils.data import DataLoader, Dataset

from swin_dense.errors import UnsafeFileError, UserError, exit_on_user_error


class Broken(Dataset):
    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> None:
        raise UserError('image a.tif: it is\nbroken')


def stopped(main: object, capfd: pytest.CaptureFixture) -> tuple[int, str]:
    with pytest.raises(SystemExit) as exit_:
        exit_on_user_error(main)
    return exit_.value.code, capfd.readouterr().err


def test_one_line_and_status(capfd: pytest.CaptureFixture):
    def main() -> None:
        raise UnsafeFileError('it holds\n  code')

    assert stopped(main, capfd) == (3, 'error: it holds code\n')


def test_nothing_reaches_the_terminal_raw(capfd: pytest.CaptureFixture):
    def main() -> None:
        raise UserError('image \x1b[2J\udc80.jpg is broken')

    assert stopped(main, capfd) == (2, 'error: image \\x1b[2J\\udc80.jpg is broken\n')


def test_from_a_worker_of_a_data_loader(capfd: pytest.CaptureFixture):
    def main() -> None:
        next(iter(DataLoader(Broken(), num_workers=1)))

    assert stopped(main, capfd) == (2, 'error: image a.tif: it is broken\n')
