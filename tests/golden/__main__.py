"""Write the compiled files of the repository again."""

import os
import sys

from tests.golden import ROOT, catalog, expected

if os.environ.get("CI"):
    sys.exit("CI compares, it does not write: run this by hand and read the change")
for stale in {path for folder in {path.parent for path, _ in catalog()} for path in folder.glob("*.yaml")}:
    stale.unlink()
for path, text in expected():
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    print(path.relative_to(ROOT))
