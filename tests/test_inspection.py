from dataclasses import replace

from cellseg.commands.inspect import Inspect
from cellseg.inspection import inspect, most_shown


def test_the_cells_of_each_class_are_told_by_name(folder):
    found = inspect(folder)
    assert found["plan"]["class_cells"] == {"class1": 15, "class2": 15, "class3": 1, "class4": 1}
    assert found["plan"]["class_cells"] == found["cells_per_class"]
    assert found["plan"]["overlap"] == 64
    assert not {"images", "image_weights"} & set(found["plan"])


def test_the_five_images_that_are_shown_most_often_come_first_to_last(prepared):
    weights = (0.5, 1.5, 0.9, 1.1, 1.3, 0.7)
    plan = replace(prepared.plan, images=tuple("abcdef"), image_weights=weights)
    assert list(most_shown(plan).items()) == [("b", 1.5), ("e", 1.3), ("d", 1.1), ("c", 0.9), ("f", 0.7)]


def test_the_table_has_a_line_an_image(folder, capsys):
    Inspect(folder).run()
    lines = capsys.readouterr().out.splitlines()
    start = lines.index("most_shown:")
    assert lines[start + 1].split() == ["image3", "1.282"]  # sqrt(0.5 x 4) = 1.41, beside three of 1
    assert [line.split()[0] for line in lines[start + 2 : start + 6]] == ["image0", "image1", "image2", "plan:"]
