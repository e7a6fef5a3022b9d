import base64
import json
import zlib

from cellseg import saved_view


def test_the_view_is_packed_as_the_ui_packs_it_and_sorts_by_ap50():
    name, value = saved_view.tag()
    assert name == "mlflow.sharedViewState.by-AP50"
    view = json.loads(value)
    kind, packed = view["state"].split(";")
    state = json.loads(zlib.decompress(base64.b64decode(packed)))
    assert (view["name"], kind) == ("by AP50", "deflate")
    assert (state["orderByKey"], state["orderByAsc"]) == ("metrics.`best/AP50`", False)
    assert "params.`train.learning_rate`" in state["selectedColumns"]
    assert "duration" not in state["selectedColumns"]  # it is always shown
    assert set(state["columnOrder"]) == set(state["columnWidths"]) > set(state["selectedColumns"])


def test_the_view_fits_into_a_tag():
    assert len(saved_view.tag()[1]) < 5000
