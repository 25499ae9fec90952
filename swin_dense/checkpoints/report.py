"""The report of loading a checkpoint into a model, for people and for programs."""

from dataclasses import asdict, dataclass, field


@dataclass
class Report:
    """The outcome of loading a file into a model.

    Attributes:
        file: path or address.
        source: the library that the weights come from: ``'timm, Swin v2'``.
        matched: the model's tensors that were loaded unchanged.
        adapted: the tensors that were resized, and the change of each.
        missing: the model's tensors that the file lacks. They keep their initial values.
        unexpected: the file's tensors that the model does not have.
        dropped: tensors that both have, in shapes that cannot be adapted.
        filled: the share of the model's parameters that come from the file, from 0 to 1.
    """

    file: str
    source: str
    matched: list[str] = field(default_factory=list)
    adapted: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    dropped: dict[str, str] = field(default_factory=dict)
    filled: float = 0.0

    def as_dict(self) -> dict:
        """The report as plain data, for JSON."""
        return asdict(self)

    def lines(self) -> list[str]:
        """A line of totals, and lines for the tensors that did not match."""
        total = len(self.matched) + len(self.adapted) + len(self.missing) + len(self.dropped)
        lines = [
            f'weights: {self.file} ({self.source}): {len(self.matched)} of {total} tensors matched, '
            f'{self.filled:.1%} of the parameters filled'
        ]
        if self.adapted:
            ways = dict.fromkeys(self.adapted.values())
            lines.append(f'  adapted {len(self.adapted)}: {", ".join(ways)}')
        for key, why in self.dropped.items():
            lines.append(f'  dropped {key}: {why}')
        for kind, names in (('missing', self.missing), ('not used', self.unexpected)):
            if names:
                lines.append(f'  {kind} {len(names)}: {_shown(names)}')
        return lines


def _shown(names: list[str], limit: int = 4) -> str:
    return ', '.join(names[:limit]) + (', ...' if len(names) > limit else '')
