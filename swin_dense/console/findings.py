"""The findings of a check: a table for people, JSON for programs, one line that stops a run."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, TypedDict

from rich.markup import escape
from rich.table import Table

from swin_dense.errors import UserError
from swin_dense.printable import printable

Severity = Literal['error', 'warning', 'note']
COLOURS: dict[Severity, str] = {'error': 'red', 'warning': 'yellow', 'note': 'dim'}
SHOWN = 5  # examples that are named; the count says how many there are


@dataclass(frozen=True)
class Finding:
    """One kind of problem or fact, and its place.

    Attributes:
        severity: an error stops a run: training would crash, or learn something else than the user thinks.
            A warning is worth a look; a note is worth knowing.
        file: the annotation file, label map, image or folder.
        field: what is meant in it, ``annotations.bbox`` or ``label 7``; empty for the file as a whole.
        message: what is wrong and, where it is not plain, what follows and how to correct it. No full stop.
        examples: annotation ids, image ids or file names, all of them or the first few.
        count: how many there are.
        samples: whether it is single images or label maps, without which training can go on.
    """

    severity: Severity
    file: Path
    field: str
    message: str
    examples: tuple[int | str, ...] = ()
    count: int = 1
    samples: bool = False

    def line(self) -> str:
        """``file: field: message (3 of them: 17, 18, 40)``."""
        where = ': '.join(part for part in (str(self.file), self.field) if part)
        return f'{where}: {self.message}{_examples(self)}'


class Examples(TypedDict):
    """The fields of a ``Finding`` that say what it concerns."""

    examples: tuple[int | str, ...]
    count: int


def some(ids: Iterable[int | str]) -> Examples:
    """``examples`` and ``count`` of a finding, as keyword arguments, from all that it concerns."""
    listed = list(ids)
    return Examples(examples=tuple(listed[:SHOWN]), count=len(listed))


def some_of_several(ids: Sequence[int | str]) -> Examples:
    """As ``some``; no examples of a single one, which the finding itself names."""
    return some(ids) if len(ids) > 1 else Examples(examples=(), count=1)


def errors(findings: Sequence[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.severity == 'error']


def skippable(findings: Sequence[Finding]) -> list[Finding]:
    """The findings of a run that goes on without bad images: errors of single samples become warnings."""
    return [
        replace(finding, severity='warning', message=f'{finding.message}; left out')
        if finding.samples and finding.severity == 'error'
        else finding
        for finding in findings
    ]


def stop_on_errors(findings: Sequence[Finding]) -> None:
    """Raise the first error as a ``UserError`` that says how many more there are."""
    grave = errors(findings)
    if grave:
        more = f' (and {len(grave) - 1} more: see tools/check_data.py)' if len(grave) > 1 else ''
        raise UserError(grave[0].line() + more)


def table(findings: Sequence[Finding]) -> Table:
    """A row for each finding, the gravest first."""
    rows = Table(show_lines=False)
    for name in ('severity', 'where', 'what'):
        rows.add_column(name, overflow='fold')
    order = list(COLOURS)
    for finding in sorted(findings, key=lambda finding: order.index(finding.severity)):
        where = ': '.join(part for part in (str(finding.file), finding.field) if part)
        colour = COLOURS[finding.severity]
        rows.add_row(
            f'[{colour}]{finding.severity}',
            escape(printable(where)),
            escape(printable(finding.message + _examples(finding))),
        )
    return rows


def as_json(findings: Sequence[Finding]) -> list[dict]:
    """The findings as JSON holds them."""
    shown = [{**asdict(finding), 'file': str(finding.file)} for finding in findings]
    for finding in shown:
        del finding['samples']  # of use to a run alone
    return shown


def _examples(finding: Finding) -> str:
    if not finding.examples:
        return ''
    named = ', '.join(map(str, finding.examples[:SHOWN]))
    if finding.count == 1:
        return f' ({named})'
    rest = ', ...' if finding.count > len(finding.examples[:SHOWN]) else ''
    return f' ({finding.count} of them: {named}{rest})'
