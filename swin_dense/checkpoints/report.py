"""The report of loading a checkpoint into a model, for people and for programs."""

from dataclasses import asdict, dataclass, field


@dataclass
class Report:
    """The outcome of loading a file into a model.

    Attributes:
        file: path or address.
        source: whose weights they are, ``'timm, Swin v2'``.
        matched: the model's tensors that were taken as they are.
        adapted: tensors that were changed to fit, and how.
        missing: the model's tensors that the file lacks; they keep their initial values.
        unexpected: tensors of the file that the model has no place for.
        dropped: tensors of both, in shapes that cannot be made to fit.
        filled: share of the model's parameters that now come from the file, from 0 to 1.
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
        """Plain data, for JSON."""
        return asdict(self)

    def lines(self) -> list[str]:
        """One line on the whole, and one for each kind of tensor that did not simply match."""
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
