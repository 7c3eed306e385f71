"""For any input: no 500, no hang, no slot left taken, and the next request is served."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from tests.http.fuzz.live import Live


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    live = Live(str(tmp_path_factory.mktemp("evidence") / "evidence.db"))
    with pytest.MonkeyPatch.context() as patch:  # unknown decisions are looked for only twice
        patch.setattr("gateway.evidence.feedback_desk._PAUSES", (0.001,))
        live.start()
        yield live
        live.stop()


@pytest.fixture(autouse=True)
def nothing_of_ours_failed(live: Live, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No test may leave an error in the log or a slot taken."""
    yield
    errors = [r for r in caplog.get_records("call") if r.levelno >= logging.ERROR]
    assert [record.getMessage() for record in errors] == []
    live.assert_serving()
