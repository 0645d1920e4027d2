"""Draws which releases of OpenShift share a kernel, from the rows of the lock (`make docs`)."""

from __future__ import annotations

from dtkpipe.app.catalog import by_kernel
from dtkpipe.releases.lock import Lock
from dtkpipe.resources import shipped

MINORS = {"4.13": "#8a8fd8", "4.14": "#4c9a6a", "4.15": "#d08a3e"}
_LEFT, _ROW, _BOX, _TOP = 250, 22, 58, 46


def picture() -> str:
    """The drawing as SVG: a line for each kernel that RHEL 9.2 gave to releases we know."""
    rows = {kernel: text for kernel, text in by_kernel(Lock(shipped("catalog/releases"))).items()
            if ".el9_2." in kernel.release and kernel.variant == "std"}  # fmt: skip
    parts = []
    for number, (kernel, text) in enumerate(rows.items()):
        y = _TOP + number * _ROW
        parts.append(f'<text x="{_LEFT - 12}" y="{y + 14}" text-anchor="end">{kernel}</text>')
        x = _LEFT
        for span in text.split(", "):
            minor = ".".join(span.split(".")[:2])
            first, _, last = span.rpartition(".")[2].partition("-")
            width = _BOX * (int(last or first) - int(first) + 1) / 2 + _BOX / 2
            parts.append(f'<rect x="{x}" y="{y}" width="{width:g}" height="{_ROW - 4}" rx="3" fill="{MINORS[minor]}"/>')
            parts.append(f'<text x="{x + width / 2:g}" y="{y + 13}" text-anchor="middle" fill="#fff">{span}</text>')
            x += width + 4
    height = _TOP + len(rows) * _ROW + 10
    title = f"{len(rows)} kernels of RHEL 9.2, and the releases that one image for each of them serves"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="720" height="{height}" viewBox="0 0 720 {height}" '
        'font-family="sans-serif" font-size="11" role="img">\n'
        f'<title>{title}</title>\n<rect width="100%" height="100%" fill="#fff"/>\n'
        f'<text x="14" y="24" font-size="14">{title}</text>\n' + "\n".join(parts) + "\n</svg>\n"
    )
