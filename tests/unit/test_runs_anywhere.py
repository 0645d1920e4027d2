"""Where runs are looked for: places in the place of clusters, to see what is asked, said and raised."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dtkpipe.app.clusters import Where
from dtkpipe.app.runs import Runs, outcome
from dtkpipe.app.runs_anywhere import Anywhere, anywhere
from dtkpipe.errors import (
    DtkpipeError,
    NotFoundError,
    RunCancelledError,
    RunFailedError,
    RunUnknownError,
    UnreachableError,
    UnsupportedError,
    UsageError,
)
from dtkpipe.values.run import CANCELLED, FAILED, RUNNING, SUCCEEDED, RunCard, StepRecord


@dataclass
class Kept:
    """A place with runs, or one that cannot be asked."""

    engine: str
    names: dict[str, float] = field(default_factory=dict)
    error: DtkpipeError | None = None
    asked: int = 0

    def __str__(self) -> str:
        return f"the {self.engine}"

    def all(self, limit: int = 0) -> list[RunCard]:
        self.asked += 1
        if self.error:
            raise self.error
        cards = [
            RunCard(name=name, engine=self.engine, pipeline="p", created=when) for name, when in self.names.items()
        ]
        return sorted(cards, key=lambda card: -card.created)[: limit or None]

    def card(self, name: str) -> RunCard | None:
        return next((card for card in self.all() if card.name == name), None)

    def wait(self, name: str, until: float | None = None) -> RunCard:
        raise AssertionError

    def cancel(self, name: str) -> bool:
        raise AssertionError

    def retry(self, name: str, *, from_failed: bool) -> RunCard:
        raise AssertionError

    def delete(self, name: str) -> None:
        raise AssertionError


def test_lists_are_of_all_places_the_newest_first() -> None:
    places = Anywhere([Kept("local", {"a": 1}), Kept("argo", {"b": 3, "c": 2})], print)
    assert [card.name for card in places.all(2)] == ["b", "c"]
    assert places.find("@latest").card.name == "b"


def test_a_name_on_this_machine_asks_no_cluster() -> None:
    there = Kept("argo", {"a": 1})
    assert Anywhere([Kept("local", {"a": 1}), there], print).find("a").card.engine == "local"
    assert there.asked == 0


def test_a_name_that_two_engines_have_is_not_guessed() -> None:
    with pytest.raises(UsageError, match="two runs `a`") as raised:
        Anywhere([Kept("argo", {"a": 1}), Kept("tekton", {"a": 1})], print).find("a")
    assert raised.value.hint == "say which: --engine argo or tekton"


def test_a_name_that_is_nowhere() -> None:
    places = Anywhere([Kept("local", {"simple-kmod": 1}), Kept("argo")], print)
    with pytest.raises(NotFoundError) as raised:
        places.find("simpel-kmod")
    assert raised.value.details == ("looked in: the local", "looked in: the argo")
    assert raised.value.hint == "did you mean `simple-kmod`?"


def test_a_cluster_that_nobody_named_may_be_down(capsys: pytest.CaptureFixture[str]) -> None:
    down = UnreachableError("the cluster does not answer")
    argo, tekton = Kept("argo", error=down), Kept("tekton", error=down)
    places = Anywhere([Kept("local", {"a": 1}), argo, tekton], print, strict=False)
    assert [card.name for card in places.all(10)] == ["a"]
    assert capsys.readouterr().out == "note: the cluster does not answer: its runs are not among these\n"
    assert (argo.asked, tekton.asked) == (1, 0)
    with pytest.raises(UnreachableError):
        places.find("b")


def test_a_cluster_that_was_named_must_answer() -> None:
    with pytest.raises(UnreachableError):
        Anywhere([Kept("argo", error=UnreachableError("down"))], print).all(10)


def test_a_cluster_may_have_one_engine_only() -> None:
    missing = UnsupportedError("Tekton is not on this cluster")
    places = Anywhere([Kept("argo", {"a": 1}), Kept("tekton", error=missing)], print)
    assert [card.name for card in places.all(10)] == ["a"]
    with pytest.raises(UnsupportedError):
        Anywhere([Kept("tekton", error=missing)], print).all(10)


def test_without_a_cluster_only_this_machine_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/dev/null")
    for engine in ("", "local"):
        places = anywhere(engine, Where(), named=False, state=tmp_path, say=print)
        assert list(places.places) == [Runs(tmp_path)]
    with pytest.raises(UsageError) as raised:
        anywhere("tektn", Where(), named=False, state=tmp_path, say=print)
    assert raised.value.hint == "did you mean `tekton`?"


def test_a_kubeconfig_that_is_broken_hides_no_run_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "config"
    broken.write_text("]")
    monkeypatch.setenv("KUBECONFIG", str(broken))
    assert list(anywhere("", Where(), named=False, state=tmp_path, say=print).places) == [Runs(tmp_path)]
    assert capsys.readouterr().out.startswith("note: only this machine is looked at: ")
    with pytest.raises(DtkpipeError):
        anywhere("argo", Where(), named=False, state=tmp_path, say=print)


@pytest.mark.parametrize(
    ("state", "code", "kind"),
    [
        (SUCCEEDED, None, None),
        (RUNNING, None, None),
        (FAILED, 1, RunFailedError),
        (FAILED, 137, RunFailedError),
        (FAILED, 7, UnreachableError),
        (FAILED, 12, RunUnknownError),
        (CANCELLED, 143, RunCancelledError),
    ],
)
def test_outcomes(state: str, code: int | None, kind: type[DtkpipeError] | None) -> None:
    step = StepRecord(name="build", state=FAILED if state == FAILED else state, exit_code=code, hint="mend it")
    card = RunCard(name="r", engine="argo", pipeline="p", state=state, cause="build: it broke", steps=(step,))
    error = outcome(card)
    assert (type(error) if error else None) is kind
    if error and state == FAILED:
        assert error.what == "run r failed: build: it broke"
        assert error.hint == "mend it\n      dtkpipe logs r --failed"
