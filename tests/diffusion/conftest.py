"""Processes that several test files measure: both schedules, with some modalities aggregated."""

import pytest

from tests.diffusion.gaussian_oracles import SCHEDULES, Paper, T


@pytest.fixture(params=SCHEDULES, ids=["linear_schedule", "cosine_schedule"])
def schedule(request):
    return request.param(T)


@pytest.fixture(params=[0, 1, 3])
def paper(request, schedule):
    return Paper(schedule, request.param)


@pytest.fixture
def paper2(schedule):
    return Paper(schedule, 2, seed=5)
