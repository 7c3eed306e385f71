"""Files of prompts: every format, and files that are broken."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from gateway.evidence.measuring.prompt_files import read_prompts
from gateway.evidence.measuring.prompts import PromptsError

ROWS = [{"question": "1 + 1?", "answer": "2"}, {"question": 'say "a,\nb"', "answer": "x"}]


def written(folder: Path, name: str) -> Path:
    path = folder / name
    lines = "".join(f"{json.dumps(row)}\n" for row in ROWS)
    if name.endswith(".jsonl.gz"):
        path.write_bytes(gzip.compress(lines.encode()))
    elif name.endswith(".jsonl"):
        path.write_text("\ufeff" + lines + "\n")
    elif name.endswith(".json"):
        path.write_text(json.dumps(ROWS))
    elif name.endswith(".csv"):
        path.write_text('question,answer\n1 + 1?,2\n"say ""a,\nb""",x\n')
    else:
        parquet.write_table(pa.Table.from_pylist(ROWS), path)
    return path


@pytest.mark.parametrize("name", ["p.jsonl", "p.jsonl.gz", "p.json", "p.csv", "p.parquet"])
def test_formats(tmp_path: Path, name: str) -> None:
    """The same prompts come from every format."""
    prompts, notes = read_prompts(written(tmp_path, name))

    assert [(each.text, each.reference) for each in prompts] == [("1 + 1?", "2"), ('say "a,\nb"', "x")]
    assert notes == []


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.jsonl", b'{"prompt": "a"}\n{"prompt": \n', ":2: no JSON: "),
        ("p.jsonl", b'{"prompt": "a"}\n\n[1]\n', ":3: a record must be an object"),
        ("p.jsonl", b'{"prompt": "a"}\n{"prompt": "\xff"}\n', ":2: not UTF-8"),
        ("p.jsonl", b"\n", ": no prompts"),
        ("p.jsonl", b"[" * 100_000 + b"\n", ":1: no JSON: "),
        ("p.json", b'[\n{"prompt": "a"},\n{"prompt" "b"}]', ":3: no JSON: "),
        ("p.json", b'{"prompt": "a"}', ": a list of records is expected"),
        ("p.json", b'[{"prompt": "a"}, {}]', ": record 2: no prompt"),
        ("p.csv", b"prompt,answer\na,1\nb,2,3\n", ":3: 3 cells, but 2 columns"),
        ("p.csv", b'prompt\n"a\n', ":2: unexpected end of data"),
        ("p.csv", b"text\na\n", ":2: no prompt"),
        ("p.parquet", b"PAR1", ": "),
        ("p.jsonl.gz", b"\x1f\x8b\x08\x00broken", ": damaged gzip data"),
        ("p.txt", b"a\n", ": the name must end in .jsonl"),
    ],
)
def test_broken_files(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    """A broken file is refused as a whole, with its name and the line."""
    path = tmp_path / name
    path.write_bytes(content)

    with pytest.raises(PromptsError) as error:
        read_prompts(path)

    assert str(error.value).startswith(f"{path}{message}")


def test_no_file(tmp_path: Path) -> None:
    """A file that is not there is named."""
    with pytest.raises(PromptsError, match="No such file"):
        read_prompts(tmp_path / "p.jsonl")
