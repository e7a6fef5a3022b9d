import base64

import pytest

from cellseg.markup import Html, beside, element, escaped, joined, picture, table


def test_text_is_escaped_and_html_is_not():
    inner = element("b", "a & b")
    assert inner == "<b>a &amp; b</b>"
    assert element("p", "<i>", inner) == "<p>&lt;i&gt;<b>a &amp; b</b></p>"
    assert escaped(escaped("<")) == "&lt;"


def test_an_attribute_cannot_be_left():
    assert element("p", title='"><script>') == '<p title="&quot;&gt;&lt;script&gt;"></p>'


def test_attributes_are_named_as_in_html():
    found = element("meta", name="viewport", http_equiv="x", class_="y", aria_label="z")
    assert found == '<meta name="viewport" http-equiv="x" class="y" aria-label="z">'


@pytest.mark.parametrize("name", ["img", "meta", "br"])
def test_a_void_element_has_no_end(name):
    assert element(name) == f"<{name}>"


def test_parts_stand_on_lines_of_their_own():
    assert joined(["<", Html("<p>")]) == "&lt;\n<p>"
    assert joined([]) == ""


def test_a_table_names_its_columns_and_rows_and_takes_cells_as_they_are():
    cell = element("td", "3", style="color:red")
    found = table("<Counts>", ("class", "cells", "more"), [("a<b", "1,000", cell)])
    assert "<caption>&lt;Counts&gt;</caption>" in found
    assert '<th scope="col">class</th><th scope="col">cells</th>' in found
    assert '<tr><th scope="row">a&lt;b</th><td>1,000</td><td style="color:red">3</td></tr>' in found
    assert 'aria-label="&lt;Counts&gt;"' in found


def test_a_picture_is_in_the_page_and_told_in_words():
    content = b"\xff\x00"
    found = picture(content, 'a "cell"', "image/jpeg")
    coded = base64.b64encode(content).decode()
    assert found == f'<img src="data:image/jpeg;base64,{coded}" alt="a &quot;cell&quot;">'
    assert beside(found, found).count("<img") == 2
