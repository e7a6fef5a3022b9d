import base64
import json
import zlib

import pytest

from cellseg import saved_views


@pytest.mark.parametrize(
    ("name", "key", "sorted_by"),
    [("by AP50", "by-AP50", "metrics.`best/AP50`"), ("by study", "by-study", "attributes.start_time")],
)
def test_a_view_is_packed_as_the_ui_packs_it(name, key, sorted_by):
    view = json.loads(saved_views.tags()[f"mlflow.sharedViewState.{key}"])
    kind, packed = view["state"].split(";")
    state = json.loads(zlib.decompress(base64.b64decode(packed)))
    assert (view["name"], kind) == (name, "deflate")
    assert (state["orderByKey"], state["orderByAsc"]) == (sorted_by, False)
    assert "params.`train.learning_rate`" in state["selectedColumns"]
    assert "duration" not in state["selectedColumns"]  # it is always shown
    assert set(state["columnOrder"]) == set(state["columnWidths"]) > set(state["selectedColumns"])


def test_each_view_fits_into_a_tag():
    assert max(map(len, saved_views.tags().values())) < 5000
