"""Tables of plans."""

from __future__ import annotations

import io

from rich.console import Console

from nodes.cli.tables import plan_table, tile_rows
from tests.unit.nodes.watch.feed import GRAPH, coded_plan, plan_of


def test_tiles_of_several_tensors_name_each_way_s_codecs() -> None:
    coded = (("there", "shuffle-zstd"), ("there", "bitmap"), ("there", "bitmap"), ("back", "webp"))
    tiles = {
        "rows": [4],
        "columns": [4],
        "workers": ["worker-1"],
        "from": "first",
        "to": "last",
        "codecs": [{"tensor": n, "way": way, "codec": codec} for n, (way, codec) in enumerate(coded)],
    }
    one = {"worker": "worker-1", "nbytes": 3000, "result_nbytes": 2000, "transfer_seconds": 0.0, "compute_seconds": 0.1}
    _, tile = tile_rows(tiles, {"seconds": 0.1, "tiles": [one]})
    assert tile[3:5] == ("3 kB there (bitmap, shuffle-zstd)", "2 kB back (webp)")


def test_the_answer_has_a_row_with_its_bytes_and_codec() -> None:
    for plan, row in ((plan_of(1), "1 tensor t3 4 kB"), (coded_plan(1), "1 tensor t3 (bitmap) 2 kB, 2x fewer")):
        console = Console(file=io.StringIO(), width=160)
        console.print(plan_table(plan.to_json(GRAPH)))
        assert isinstance(console.file, io.StringIO)
        (line,) = (line for line in console.file.getvalue().splitlines() if "answer" in line)
        assert " ".join(line.replace("│", " ").split()) == f"↩ answer {row}"
