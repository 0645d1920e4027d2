"""The catalogue refreshed and verified against a synthetic OpenShift, and the commands as users run them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from dtkpipe.app.catalog import Online, Selection, drifted, update, verify
from dtkpipe.clients.registry import Registry
from dtkpipe.errors import UnreachableError
from dtkpipe.releases.images import CONTENT, RELEASES
from dtkpipe.releases.lock import Lock
from dtkpipe.releases.refresh import Reader, Target, refresh
from dtkpipe.values.arch import AARCH64, X86_64
from dtkpipe.values.image import ImageRef
from dtkpipe.values.mirrors import parse_mirrors
from dtkpipe.values.version import Version
from tests.fixtures.cli import Cli
from tests.fixtures.faults import QUICK, Answer, Exchange, on
from tests.fixtures.graph import UpdateGraph, update_graph
from tests.fixtures.openshift import KERNEL, OpenShift, Site, known

DAY = "2026-11-24"
OTHER = "5.14.0-427.33.1.el9_4.x86_64"


@pytest.fixture
def online(site: Site) -> Online:
    access = site.proxy.access(mirrors=parse_mirrors(site.openshift.mirrors()))
    releases = ImageRef(site.proxy.host, RELEASES.repository)
    return Online(registry=Registry(access, QUICK), access=access, channel="tags", releases=releases)


def _fill(shift: OpenShift, line: str) -> None:
    """Three releases of one line, of which two have the same toolkit, on two architectures."""
    arm = KERNEL.replace("x86_64", "aarch64")
    for arch, kernels in ((X86_64, (KERNEL, KERNEL, OTHER)), (AARCH64, (arm, arm, arm))):
        for patch, kernel in enumerate(kernels):
            images = {"driver-toolkit": shift.toolkit(kernel, arch=arch), "rhel-coreos": shift.system(kernel, arch)}
            shift.release(f"{line}.{patch}", images, arch=arch)


def test_update(site: Site, online: Online) -> None:
    _fill(site.openshift, "4.41")
    lock, told, everything = Lock(site.folder), list[str](), Selection.parse("4.41", "all")
    report = update(lock, everything, online, DAY, told.append, jobs=4)
    assert (len(report.added), report.failed) == (6, {})
    assert len(told) == 6
    assert site.pulled() == 0
    first = {path.name: path.read_bytes() for path in site.folder.iterdir()}
    assert list(first) == ["4.41.yaml"]
    rows = Lock(site.folder).rows((4, 41))
    assert [f"{row.version} {row.arch}" for row in rows][:3] == ["4.41.0 x86_64", "4.41.0 aarch64", "4.41.1 x86_64"]
    assert all(row.complete and row.source == ("registry",) and row.date == DAY for row in rows)
    assert rows[0].toolkit == rows[2].toolkit

    site.proxy.requests.clear()
    again = update(Lock(site.folder), everything, online, "2027-01-01", told.append, jobs=4)
    assert (again.complete, again.added) == (6, [])
    assert {path.name: path.read_bytes() for path in site.folder.iterdir()} == first
    asked = [one for one in site.proxy.requests if "tags/list" not in one.path and one.path != "/v2/"]
    assert {one.method for one in asked} == {"HEAD"}
    assert len(asked) == 6


def test_the_update_graph_says_that_nothing_changed(site: Site, online: Online) -> None:
    """It names the images by digest: then not even the registry is asked."""
    image = site.openshift.standard("4.51.0")
    lock, target = Lock(site.folder), Target(Version.parse("4.51.0"), X86_64, RELEASES.at(image.digest))
    reader = Reader(online.registry, DAY)
    assert len(refresh(lock, reader, [target], lambda _line: None, jobs=1).added) == 1
    site.proxy.requests.clear()
    assert refresh(Lock(site.folder), reader, [target], lambda _line: None, jobs=1).complete == 1
    assert site.proxy.requests == []


def test_a_release_that_was_published_anew(site: Site, online: Online) -> None:
    """A known release whose tag leads elsewhere is read, and contradicts the lock."""
    selection = Selection.parse("4.52", "x86_64")
    site.openshift.standard("4.52.1")
    update(Lock(site.folder), selection, online, DAY, lambda _line: None, jobs=1)
    (before,) = Lock(site.folder).rows((4, 52))
    again = site.openshift.standard("4.52.1", OTHER)
    report = update(Lock(site.folder), selection, online, DAY, lambda _line: None, jobs=1)
    said = str(report.failed["4.52.1 x86_64"])
    assert "payload is not what the lock says" in said
    assert before.payload in said
    assert again.digest in said
    assert Lock(site.folder).rows((4, 52)) == [before]


def test_of_a_known_release_only_what_is_missing_is_read(site: Site, online: Online) -> None:
    selection = Selection.parse("4.53", "x86_64")
    site.openshift.standard("4.53.2", labels=True)
    site.proxy.faults.append(on("GET", "ocp-v4.0-art-dev", lambda one: one.say(Answer(401, {}, b"{}"))))
    update(Lock(site.folder), selection, online, DAY, lambda _line: None, jobs=1)
    site.proxy.requests.clear()
    again = update(Lock(site.folder), selection, online, DAY, lambda _line: None, jobs=1)
    assert (again.same, again.filled) == (1, [])
    assert not [
        one
        for one in site.proxy.requests
        if one.method == "GET" and "ocp-release/" in one.path and "tags/list" not in one.path
    ]

    site.proxy.faults.clear()
    site.proxy.requests.clear()
    later = update(Lock(site.folder), selection, online, "2027-01-01", lambda _line: None, jobs=1)
    assert [str(row.kernels["std"]) for row in later.filled] == [KERNEL]
    assert [one.method for one in site.proxy.requests if "ocp-release/manifests" in one.path] == ["HEAD"]
    assert not [one for one in site.proxy.requests if "ocp-release/blobs" in one.path]


def test_what_was_unknown_is_filled_in(site: Site, online: Online) -> None:
    site.openshift.standard("4.42.0", labels=True)
    digest = site.openshift.standard("4.42.0", labels=True)
    assert digest.digest
    toolkit = site.ask("4.42.0").toolkit
    assert toolkit is not None
    site.know(known("4.42.0", toolkit=toolkit.digest))
    report = update(Lock(site.folder), Selection.parse("4.42", "x86_64"), online, DAY, lambda _line: None, jobs=2)
    assert len(report.filled) == 1
    (row,) = Lock(site.folder).rows((4, 42))
    assert (row.source, row.kernels["std"].release) == (("awslabs", "registry"), KERNEL)


def test_a_contradiction_stops_nothing_and_changes_nothing(site: Site, online: Online) -> None:
    site.openshift.standard("4.43.0")
    site.openshift.standard("4.43.1")
    site.know(known("4.43.0"))
    report = update(Lock(site.folder), Selection.parse("4.43", "x86_64"), online, DAY, lambda _line: None, jobs=2)
    assert [row.name for row in report.added] == ["4.43.1 x86_64 (rhel-9)"]
    assert "toolkit is not what the lock says" in str(report.failed["4.43.0 x86_64"])
    assert Lock(site.folder).rows((4, 43))[0] == known("4.43.0")


def test_an_interrupted_update_goes_on(site: Site, online: Online, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dtkpipe.releases.refresh._BATCH", 1)
    _fill(site.openshift, "4.44")
    selection = Selection.parse("4.44", "all")

    def stop(line: str) -> None:
        if "4.44.1" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        update(Lock(site.folder), selection, online, DAY, stop, jobs=1)
    kept = len(Lock(site.folder).rows((4, 44)))
    assert 0 < kept < 6
    report = update(Lock(site.folder), selection, online, DAY, lambda _line: None, jobs=2)
    assert (report.complete, len(report.added)) == (kept, 6 - kept)


def test_nobody_answers_any_more(site: Site, online: Online, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dtkpipe.releases.refresh._HOPELESS", 2)
    _fill(site.openshift, "4.45")
    site.proxy.faults.append(on("GET", "manifests", Exchange.drop))
    with pytest.raises(UnreachableError, match="given up"):
        update(Lock(site.folder), Selection.parse("4.45", "all"), online, DAY, lambda _line: None, jobs=2)
    assert not site.folder.exists()


def test_without_a_pull_secret_digests_are_recorded(site: Site, online: Online) -> None:
    site.openshift.standard("4.46.0")
    site.proxy.faults.append(on("GET", "ocp-v4.0-art-dev", lambda one: one.say(Answer(401, {}, b"{}"))))
    update(Lock(site.folder), Selection.parse("4.46", "x86_64"), online, DAY, lambda _line: None, jobs=1)
    (row,) = Lock(site.folder).rows((4, 46))
    assert (bool(row.toolkit), row.kernels, row.complete) == (True, {}, False)


def test_a_toolkit_of_another_repository_is_no_row(site: Site, online: Online) -> None:
    """The lock has digests of one repository: those of OKD are in another."""
    toolkit = site.openshift.toolkit()
    site.openshift.release("4.40.0", {"driver-toolkit": ImageRef("quay.io", "okd/scos-content", digest=toolkit.digest)})
    report = update(Lock(site.folder), Selection.parse("4.40", "x86_64"), online, DAY, lambda _line: None, jobs=1)
    assert (report.added, [error.exit_code for error in report.failed.values()]) == ([], [8])


def test_verify(site: Site, online: Online) -> None:
    _fill(site.openshift, "4.47")
    selection = Selection.parse("4.47", "x86_64")
    update(Lock(site.folder), selection, online, DAY, lambda _line: None, jobs=4)
    report = verify(Lock(site.folder), selection, online, lambda _line: None, jobs=4)
    assert (report.same, report.failed) == (3, {})
    site.openshift.standard("4.47.1", OTHER)
    site.know(known("4.47.9"))
    report = verify(Lock(site.folder), selection, online, lambda _line: None, jobs=4)
    assert (report.same, drifted(report)) == (2, ["4.47.1 x86_64", "4.47.9 x86_64"])


# The commands


@pytest.fixture
def graph(site: Site) -> Iterator[UpdateGraph]:
    with update_graph() as found:
        found.lists("stable-4.48", {one: site.openshift.standard(one).digest for one in ("4.48.0", "4.48.1")})
        found.lists("stable-4.48", {"4.47.50": "sha256:" + "0" * 64})
        yield found


def test_commands(site: Site, graph: UpdateGraph, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "mirrors.yaml").write_text(site.openshift.mirrors())
    where = ["--registry-mirrors", tmp_path / "mirrors.yaml", "--insecure-registry", site.proxy.host]
    lock = ["--lock", site.folder]
    of_graph = ["--graph", graph.url, "--insecure-registry", graph.host]

    said = cli("resolve", "--release", "stable-4.48", "--arch", "x86_64", "-o", "json", *lock, *of_graph, *where)
    assert said.code == 0, said.err
    answer = json.loads(said.out)
    assert (answer["release"], answer["kernel"], answer["gate"]) == ("4.48.1", KERNEL, "equal")
    assert answer["toolkit"].startswith(f"{CONTENT}@sha256:")
    assert answer["how"][0].startswith("stable-4.48 is 4.48.1")

    said = cli("catalog", "update", "--minor", "4.48", "--arch", "x86_64", *lock, *of_graph, *where)
    assert (said.code, said.out) == (0, "2 added, 0 filled in, 0 without news, 0 complete, 0 failed\n"), said.err
    assert "+ 4.48.0 x86_64 (rhel-9): kernel" in said.err

    said = cli("resolve", "--release", "4.48", "--arch", "x86_64", "-o", "name", *lock)
    assert (said.code, said.out) == (0, f"{answer['toolkit']}\n")
    assert cli("resolve", "--kernel", KERNEL, "-o", "name", *lock).out == said.out
    assert "4.48.0-1" in cli("releases", "--served-by", KERNEL, *lock).out
    assert cli("catalog", "list", "--minor", "4.48", "-o", "name", *lock).out.split() == [
        "4.48.0-x86_64",
        "4.48.1-x86_64",
    ]
    assert f"kernels   std: {KERNEL}" in cli("catalog", "show", "4.48.1", *lock).out
    assert cli("catalog", "verify", *lock, *where).out == "2 agree, 0 drifted, 0 could not be read\n"
    assert cli("catalog", "list", "--minor", "4.49", *lock).code == 9
    said = cli("catalog", "show", "4.48.7", *lock)
    assert (said.code, "nearest: 4.48.1" in said.err) == (5, True)

    other = tmp_path / "other"
    Lock(other).add([*Lock(site.folder), known("4.48.2")])
    said = cli("catalog", "diff", site.folder, "--lock", other)
    assert (said.code, said.out) == (1, "+ 4.48.2 x86_64 (rhel-9): kernel not known\n")
    assert cli("catalog", "diff", site.folder, *lock).code == 0


def test_a_run_resolves_an_openshift_release(site: Site, cli: Cli, tmp_path: Path) -> None:
    site.openshift.standard("4.16.400")
    mirrors, auth = site.openshift.mirrors(), tmp_path / "none.json"
    words = ["--arch=x86_64", f"--registry-mirrors={mirrors}"]
    words.append(f"--insecure-registries={json.dumps([site.proxy.host])}")
    said = cli("step", "resolve", "--release=4.16.400", *words, "-o", "json", env={"REGISTRY_AUTH_FILE": str(auth)})
    assert said.code == 0, said.err
    results = json.loads(said.out)
    assert (results["KERNEL"], results["RELEASE"], results["TOOLKIT_URL"]) == (KERNEL, "4.16.400", CONTENT.name)
    assert results["GATE"] == "equal"

    images = {"driver-toolkit": site.openshift.toolkit(), "rhel-coreos": site.openshift.system(OTHER)}
    site.openshift.release("4.16.401", images)
    words += ["--release=4.16.401", "-o", "json"]
    assert cli("step", "resolve", *words, env={"REGISTRY_AUTH_FILE": str(auth)}).code == 10
    said = cli("step", "resolve", *words, "--allow-kernel-mismatch=true", env={"REGISTRY_AUTH_FILE": str(auth)})
    assert said.code == 0, said.err
    results = json.loads(said.out)
    assert (results["GATE"], OTHER in results["HOW"]) == ("overridden", True)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["resolve"], 2, "nothing says what to resolve"),
        (["resolve", "--release", "4.16", "--kernel", KERNEL], 2, "--release, --kernel ask for different things"),
        (["resolve", "--kernel", KERNEL, "--stream", "rhel-9"], 2, "--stream has no meaning beside --kernel"),
        (["resolve", "--release", "debian-12", "--via", "lock"], 2, "--via is about OpenShift"),
        (["resolve", "--release", "debain-12"], 5, "did you mean `debian-12`"),
        (["resolve", "--release", "4.16.3", "--arch", "vax"], 5, "unknown architecture"),
        (["resolve", "--release", "4.16.3", "--via", "lock", "--arch", "s390x"], 5, "the lock does not know"),
        (["resolve", "--kernel", "5.14.0-427.25.1.el9_4.x86_64"], 5, "nearest in the lock: 5.14.0-427"),
        (["resolve", "--release", "9.9"], 5, "no release is known that is 9.9"),
        (["resolve", "--toolkit", "not an image"], 6, "is not an image reference"),
        (["catalog", "list", "--minor", "x"], 5, "there is no release `x`"),
    ],
)  # fmt: skip
def test_bad_input(cli: Cli, words: list[str], code: int, said: str) -> None:
    done = cli(*words)
    assert (done.code, done.out) == (code, "")
    assert said in done.err
    assert "Traceback" not in done.err
