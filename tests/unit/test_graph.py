"""Pictures of a pipeline: every task, the edges that others do not imply, and names that cannot break the form."""

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from dtkpipe.app.graph import FORMS, draw
from dtkpipe.app.pipelines import load
from dtkpipe.cli.main import main
from dtkpipe.model import InputRef, Pipeline, Task, container
from dtkpipe.report.graph import layout

OWN = str(Path(__file__).parents[1] / "fixtures/pipelines/scan.py")


def task(name: str, *after: Task) -> Task:
    return container(name, image="quay.io/a/b:1", argv=["x", "--", InputRef("v")], inputs={"v": "1"}, after=after)


def test_stages_and_edges() -> None:
    a = task("a")
    b, c = task("b", a), task("c", a)
    d = task("d", a, b, c)
    made = layout([a, b, c, d])
    assert [[one.name for one in stage] for stage in made.stages] == [["a"], ["b", "c"], ["d"]]
    assert set(made.edges) == {("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")}  # a -> d is implied


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["kmod", "prebuild", "resign", OWN])
def test_every_task_is_in_every_picture(name: str, form: str) -> None:
    pipeline = load(name)
    picture = draw(pipeline, form)
    for one in pipeline.all_tasks:
        assert one.name in picture
    assert picture.endswith("\n")
    assert picture == draw(pipeline, form)


def test_text() -> None:
    assert draw(load(OWN), "ascii").splitlines()[2:] == [
        "  1  resolve",
        "  2  build    after resolve",
        "  3  sign     after build",
        "  4  verify   after sign",
        "  4  scan     after sign",
        "  5  publish  after verify, scan",
        "  *  clean    always, at the end",
        "  *  report   always, at the end",
    ]


def test_mermaid_takes_names_that_are_words_of_its_own() -> None:
    end = task("end")
    lines = draw(Pipeline("p", "", [end, task("graph", end)]), "mermaid").splitlines()
    assert lines == ["flowchart LR", '  t0["end"]', '  t1["graph"]', "  t0 --> t1"]


def test_svg_is_xml_without_overlap_or_script() -> None:
    root = ET.fromstring(draw(load(OWN), "svg"))
    space = "{http://www.w3.org/2000/svg}"
    assert not root.findall(f".//{space}script")
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    boxes = [
        tuple(float(one.attrib[key]) for key in ("x", "y", "width", "height"))
        for one in root.findall(f".//{space}rect")
        if one.attrib["class"] == "task"
    ]
    assert len(boxes) == len(load(OWN).all_tasks)
    for number, (x, y, w, h) in enumerate(boxes):
        assert 0 <= x <= width - w
        assert 0 <= y <= height - h
        for other_x, other_y, _, _ in boxes[number + 1 :]:
            assert abs(x - other_x) >= w or abs(y - other_y) >= h


def test_descriptions_are_text_in_the_picture() -> None:
    one = container("a", image="quay.io/a/b:1", argv=["x"], description='<script>"&')
    ET.fromstring(draw(Pipeline("p", "", [one]), "svg"))


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["graph", "--pipeline", OWN, "-o", "mermaid"]) == 0
    assert capsys.readouterr().out.startswith("flowchart LR\n")
    assert main(["graph", "-o", "png"]) == 2
