"""Kernels out of RPM databases: two that rpm 4.18 made of empty packages, and what can be wrong with such files."""

from __future__ import annotations

import lzma
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtkpipe.errors import InvalidError
from dtkpipe.toolkits.packages import kernels_installed
from dtkpipe.values.arch import AARCH64, X86_64

KERNEL = "5.14.0-427.24.1.el9_4"
FOLDER = Path(__file__).parents[1] / "fixtures/rpmdb"
X86, ARM = (lzma.decompress((FOLDER / f"{arch}.sqlite.xz").read_bytes()) for arch in (X86_64, AARCH64))


def changed(folder: Path, change: Callable[[sqlite3.Connection], object]) -> bytes:
    """The database of x86_64 after a change."""
    file = folder / "rpmdb.sqlite"
    file.write_bytes(X86)
    connection = sqlite3.connect(file)
    change(connection)
    connection.commit()
    connection.execute("PRAGMA journal_mode=DELETE")
    connection.close()
    return file.read_bytes()


def test_kernels_by_variant() -> None:
    found = {name: str(kernel) for name, kernel in kernels_installed(X86, X86_64).items()}
    assert found == {"std": f"{KERNEL}.x86_64", "rt": f"{KERNEL}.x86_64+rt"}
    found = {name: str(kernel) for name, kernel in kernels_installed(ARM, AARCH64).items()}
    assert found == {"std": f"{KERNEL}.aarch64", "64k": f"{KERNEL}.aarch64+64k"}
    assert kernels_installed(ARM, X86_64) == {}


def test_a_realtime_kernel_of_its_own(tmp_path: Path) -> None:
    """Before RHEL 9.4 its release has a number of its own, and its name no `+rt`."""

    def change(connection: sqlite3.Connection) -> None:
        number, blob = next(
            row for row in connection.execute("SELECT hnum, blob FROM Packages") if b"kernel-rt-devel\0" in row[1]
        )
        connection.execute(
            "UPDATE Packages SET blob = ? WHERE hnum = ?", (blob.replace(b"427.24.1", b"7.rt14.3"), number)
        )

    assert str(kernels_installed(changed(tmp_path, change), X86_64)["rt"]) == "5.14.0-7.rt14.3.el9_4.x86_64"


def _two(connection: sqlite3.Connection) -> None:
    blobs = [blob for (blob,) in connection.execute("SELECT blob FROM Packages")]
    for blob in blobs:
        connection.execute("INSERT INTO Packages (blob) VALUES (?)", (blob.replace(b"427.24.1", b"427.33.1"),))


def _endless(connection: sqlite3.Connection) -> None:
    connection.execute("DROP TABLE Packages")
    connection.execute(
        "CREATE VIEW Packages AS "
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x AS blob FROM n"
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_two, "several kernels"),
        (_endless, "no packages"),
        (lambda one: one.execute("DROP TABLE Packages"), "no packages"),
        (lambda one: one.execute("UPDATE Packages SET blob = 7"), "damaged"),
        (lambda one: one.execute("UPDATE Packages SET blob = x'ffffffffffffffff'"), "damaged"),
    ],
)
def test_databases_that_are_no_use(tmp_path: Path, change: Callable[[sqlite3.Connection], object], said: str) -> None:
    with pytest.raises(InvalidError, match=said):
        kernels_installed(changed(tmp_path, change), X86_64)


@given(st.data())
def test_any_damage_is_read_or_refused(data: st.DataObject) -> None:
    body = bytearray(X86)
    for _ in range(data.draw(st.integers(1, 8))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        kernels_installed(bytes(body[: data.draw(st.integers(0, len(body)))]), X86_64)
    except InvalidError:
        return
