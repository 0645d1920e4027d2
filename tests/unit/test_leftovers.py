"""Old temporary folders go from the cache; young ones may be in use, and everything else stays."""

import os
import time
from pathlib import Path

from dtkpipe.app.leftovers import AGE, sweep


def test_only_old_temporary_folders_go(tmp_path: Path) -> None:
    old = [tmp_path / "kernels/.new-a", tmp_path / "kernels/.layers-b", tmp_path / "secureboot/.new-c"]
    young = tmp_path / "kernels/.new-young"
    kept = [tmp_path / "kernels/abc", tmp_path / "containers/overlay/.new-x", tmp_path / "toolkits/.name"]
    for folder in (*old, young, *kept):
        folder.mkdir(parents=True)
        (folder / "file").write_text("content")
    (tmp_path / "kernels/.new-link").symlink_to(kept[0])
    past = time.time() - AGE - 60
    for folder in (*old, *kept, tmp_path / "kernels/.new-link"):
        os.utime(folder, (past, past), follow_symlinks=False)
    sweep(tmp_path)
    assert [folder for folder in old if folder.exists()] == []
    assert all((folder / "file").exists() for folder in (young, *kept))
    assert (tmp_path / "kernels/.new-link").is_symlink()


def test_a_cache_that_is_not_there_is_clean(tmp_path: Path) -> None:
    sweep(tmp_path / "nowhere")
