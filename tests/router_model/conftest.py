"""A head trained on a table whose signal is known."""

from __future__ import annotations

from pathlib import Path

import pytest

from router_model.training.outcomes import OutcomeTable
from tests.router_model.synthetic import synthetic


@pytest.fixture(scope="session")
def table() -> OutcomeTable:
    """A table from which the outcomes can be learnt."""
    return synthetic(500, 1, learnable=True)


@pytest.fixture(scope="session")
def trained(table: OutcomeTable):
    """A head fitted to the table."""
    pytest.importorskip("sklearn")
    from router_model.training import train

    return train.fit_head([table], train.TrainingSettings(members=1))


@pytest.fixture(scope="session")
def saved(trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same head on disk."""
    from router_model.training import train

    folder = tmp_path_factory.mktemp("head") / "made"
    train.save(trained.head, folder)
    return folder
