"""Tables of plans."""

from __future__ import annotations

from nodes.cli.tables import tile_rows


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
