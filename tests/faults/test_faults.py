"""A few of the kills and stops; ``python -m tests.faults.kill`` and ``... .exact`` make them all."""

from collections.abc import Iterator

import pytest

from tests.faults import exact, kill
from tests.faults.exact import CASES
from tests.faults.plan import POINTS
from tests.faults.runs import Site, differences
from tests.faults.server import Server

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Server() as server:
        yield Site(server, tmp_path_factory.mktemp('faults'))


@pytest.mark.parametrize('task', ['detection', 'segmentation'])
def test_kills_at_every_point_of_a_save(site: Site, task: str):
    outcomes = kill.rows(site, task, 'during a save', len(POINTS))
    assert [(found.lost, found.different) for found in outcomes] == [(False, [])] * len(POINTS)
    assert {found.where for found in outcomes} == {' '.join(point) for point in POINTS}


@pytest.mark.parametrize('way', ['at random', 'slow disk'])
@pytest.mark.parametrize('task', ['detection', 'segmentation'])
def test_kills_at_random(site: Site, task: str, way: str):
    outcomes = kill.rows(site, task, way, 3)
    assert [(found.lost, found.different) for found in outcomes] == [(False, [])] * 3


@pytest.mark.parametrize('name', CASES)
def test_stops(site: Site, name: str):
    """In the middle of an epoch and of an accumulation, between two checkpoints."""
    for iteration, different in exact.stops(site, CASES[name], (3, 8)):
        assert different == [], iteration


@pytest.mark.parametrize('task', ['detection', 'detection_mosaic', 'segmentation'])
def test_the_number_of_workers_changes_nothing(site: Site, task: str):
    none = site.new(task).complete()
    assert differences(site.new(task, options=exact.workers(4)).complete(), none) == []


def test_the_comparison_can_fail(site: Site):
    one, other = (
        site.new('segmentation').complete(),
        site.new('segmentation', options=['optim_wrapper.optimizer.lr=1e-4']),
    )
    found = differences(other.complete(), one)
    assert len(found) > 100
    assert 'losses of iteration 12' in found
