"""Results that are to be scored; test_export.py reads and writes the other files."""

import json

import pytest

from cellseg.json_files import RESULT_KEYS, read_scorable


@pytest.mark.parametrize("content", [[1, 2], [{"image_id": "x"}], [dict.fromkeys(RESULT_KEYS, 1)]])
def test_results_that_cannot_be_scored_are_one_line(tmp_path, content):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="result 0: expected a"):
        read_scorable(path)


def test_results_that_can_be_scored_are_read_as_they_are(tmp_path):
    results = [{"image_id": 1, "category_id": 1, "score": 0.5, "segmentation": {"size": [2, 2], "counts": "04"}}]
    (tmp_path / "results.json").write_text(json.dumps(results))
    assert read_scorable(tmp_path / "results.json") == results
