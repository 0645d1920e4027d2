"""Pipelines are found by name or in the user's own file, and a broken file is told with its line."""

import shutil
from pathlib import Path

import pytest

from dtkpipe.app.graph import draw
from dtkpipe.app.pipelines import load, names
from dtkpipe.errors import InvalidError, NotFoundError
from dtkpipe.resources import shipped
from tests.pages import blocks

OWN = Path(__file__).parents[1] / "fixtures/pipelines/scan.py"


def wrote(folder: Path, text: str, name: str = "mine.py") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def test_shipped_pipelines_by_name() -> None:
    assert set(names()) == {"kmod", "prebuild", "resign"}
    for name in names():
        assert load(name).name == name


def test_a_file_of_ones_own() -> None:
    assert load(str(OWN)).name == "scanned"
    assert load(f"{OWN}:pipeline").name == "scanned"


def test_a_copy_has_two_pipelines_and_asks_which(tmp_path: Path) -> None:
    copy = tmp_path / "mine.py"
    shutil.copy(shipped("pipelines") / "kmod.py", copy)
    assert load(f"{copy}:prebuild").name == "prebuild"
    with pytest.raises(InvalidError, match="defines 2 pipelines") as caught:
        load(str(copy))
    assert f"{copy}:prebuild" in caught.value.hint
    shutil.copy(copy, tmp_path / "prebuild.py")
    assert load(str(tmp_path / "prebuild.py")).name == "prebuild"  # named like the file


def test_nearest_name_and_missing_file() -> None:
    with pytest.raises(NotFoundError) as caught:
        load("kmdo")
    assert caught.value.hint == "did you mean `kmod`?"
    with pytest.raises(NotFoundError, match="no pipeline file"):
        load("nowhere/mine.py")
    with pytest.raises(NotFoundError, match="has no pipeline `nope`"):
        load(f"{OWN}:nope")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def f(:\n", ":1: "),
        ("x = 1\nimport dtkpipe.nothing\n", ":2: ModuleNotFoundError"),
        ("x = 1\n\ny = 1 / 0\n", ":3: ZeroDivisionError: division by zero"),
        ("from dtkpipe.tasks import build\nbuild(toolkitt='x')\n", ":2: task `build` has no input `toolkitt`"),
        ("from dtkpipe.tasks import build\nbuilt = build()\nbuilt.imagee\n", ":3: AttributeError"),
        ("from dtkpipe.tasks import build\nb = build()\nprint(f'{b.commit}')\n", ":3: TypeError"),
        ("raise SystemExit(3)\n", ":1: SystemExit: 3"),
        ("\0", "is not Python"),
    ],
)
def test_a_broken_file_is_told_with_its_line(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(InvalidError) as caught:
        load(wrote(tmp_path, text))
    assert words in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_a_file_without_a_pipeline(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match="defines no pipeline"):
        load(wrote(tmp_path, "x = 1\n"))


def test_what_a_file_prints_does_not_mix_with_our_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load(wrote(tmp_path, f"print('hello')\n{OWN.read_text()}"))
    assert capsys.readouterr() == ("", "hello\n")


def test_a_pipeline_that_is_not_valid(tmp_path: Path) -> None:
    text = OWN.read_text().replace("scanner:1.4", "scanner").replace('"--severity="', '"--severity=$"')
    with pytest.raises(InvalidError) as caught:
        load(wrote(tmp_path, text))
    assert len(caught.value.details) == 2


def test_the_how_to_shows_the_file_that_is_tested() -> None:
    page = OWN.parents[3] / "docs/how-to/write-your-own-pipeline.md"
    shown = [block.body.strip() for block in blocks(page) if block.info == "python"]
    assert len(shown) == 4
    assert all(block in OWN.read_text() for block in shown)
    (picture,) = (block.body for block in blocks(page) if block.info == "console")
    assert draw(load(str(OWN)), "ascii").strip() in picture
