"""A plain chroot, where "/" is no mount point: what buildah needs there."""

import os
import subprocess
import sys
from pathlib import Path

from dtkpipe.tools import rooted

# A root folder that is no mount, with everything of this machine in it.
CHROOT = """
set -eu
for entry in /*; do
    if [ -L "$entry" ]; then cp -P "$entry" "$1$entry"
    elif [ -d "$entry" ]; then mkdir "$1$entry"; mount --rbind "$entry" "$1$entry"
    fi
done
root=$1; shift
exec chroot "$root" "$@"
"""
IN_CHROOT = """
import os, sys
from pathlib import Path
from dtkpipe.tools import process, rooted
os.chdir(sys.argv[1])
os.execvp("unshare", [*map(str, rooted.prefix()), sys.executable, "-c", '''
from pathlib import Path
from dtkpipe.tools import rooted
print(rooted.prefix(), Path.cwd(), Path("/etc/os-release").exists())
'''])
"""


def test_a_chroot_gets_a_mount_at_its_root(tmp_path: Path) -> None:
    root, work = tmp_path / "root", tmp_path / "work"
    root.mkdir()
    work.mkdir()
    as_root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    namespace = rooted.prefix() or ["unshare", "--mount", *as_root]
    command = [*namespace, "bash", "-c", CHROOT, "chroot", root, sys.executable, "-c", IN_CHROOT, work]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == f"[] {work} True\n", done.stderr
