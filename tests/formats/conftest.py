"""The fixture of the annotation files, for the reading of one too."""

from tests.check.conftest import root  # noqa: F401
