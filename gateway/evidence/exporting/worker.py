"""A process that reads and encodes slices of an export. See `gateway.evidence.exporting.encoded`."""

from __future__ import annotations

import gc
import pickle
import sys
from typing import IO, TypeAlias

from msgspec import Struct

from gateway.config.evidence import EvidenceSettings
from gateway.evidence.database import EvidenceUnavailable, existing_store
from gateway.evidence.exporting.encoding import ExportFormat, encoder_of
from gateway.evidence.exporting.pages import pages
from gateway.evidence.exporting.selection import table_named


class ExportJob(Struct, frozen=True):
    """What all slices of an export have in common."""

    settings: EvidenceSettings
    table: str
    form: ExportFormat


Reply: TypeAlias = tuple[int, bytes] | str | None
"""How many rows, and their bytes; or why the store cannot be used; or None behind the pages of a slice."""


def encode_slices(jobs: IO[bytes], replies: IO[bytes]) -> None:
    """Read a job and then slices, until there are no more; write the pages of each.

    Both streams come from and go to the parent process, so that they are pickled as by `multiprocessing`.
    """

    def reply(value: Reply) -> None:
        pickle.dump(value, replies, pickle.HIGHEST_PROTOCOL)

    try:
        job: ExportJob = pickle.load(jobs)  # noqa: S301
        engine, table = existing_store(job.settings), table_named(job.table)
        encode = encoder_of(table, job.form)
        while (part := pickle.load(jobs)) is not None:  # noqa: S301
            for page in pages(engine, table, part):
                reply((len(page), encode(page)))
            reply(None)
            replies.flush()
    except EvidenceUnavailable as error:
        reply(str(error))
        replies.flush()


if __name__ == "__main__":
    gc.disable()  # rows have no cycles, and searching them for some takes a quarter of the time
    encode_slices(sys.stdin.buffer, sys.stdout.buffer)
