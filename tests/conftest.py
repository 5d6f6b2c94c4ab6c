"""What all tests share: one seed, quiet threads, and the command line in this process."""

import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import settings

from shiftwright.sw.cli import main

DEFAULT_SEED = 20260

# Workers of pytest-xdist share the cores; libraries read these when they are loaded.
if os.environ.get("PYTEST_XDIST_WORKER"):
    for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(_name, "1")

# The same examples in every run, and no failure because another program keeps the machine busy.
settings.register_profile("shiftwright", derandomize=True, deadline=None, print_blob=True, database=None)
settings.load_profile("shiftwright")


class Outcome(NamedTuple):
    """What a run of the command line left behind."""

    code: int
    out: str
    err: str


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, default=DEFAULT_SEED, help=f"seed of the fixture rng (default {DEFAULT_SEED})")


def pytest_report_header(config: pytest.Config) -> str:
    return f"seed: {config.getoption('--seed')} (rerun with --seed {config.getoption('--seed')})"


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """The seed of this run, printed so that a failure shows it."""
    value: int = request.config.getoption("--seed")
    print(f"seed {value}")
    return value


@pytest.fixture
def rng(seed: int) -> np.random.Generator:
    """A generator that starts anew in each test."""
    return np.random.default_rng(seed)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """PyTorch on one thread: with more, a busy machine makes small work many times slower."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def shiftwright(capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run ``shiftwright ARGUMENTS...`` in this process: ``shiftwright("info", path)`` gives (code, out, err)."""
    def run(*arguments: object) -> Outcome:
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        return Outcome(code, *capfd.readouterr())

    return run
