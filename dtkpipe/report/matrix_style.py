"""The style of a matrix's page: colours for both themes, and the filter that works without a script."""

from __future__ import annotations

_FILTER = "".join(f"body:has(#f-{css}:not(:checked)) td.{css}{{opacity:.08}}" for css in ("g", "r", "s", "q", "u")) + (
    "body:has(#f-only:checked) .m tbody tr:not(.red),"
    "body:has(#f-only:checked) section:has(.m):not(:has(.m .red)){display:none}"
)

STYLE = (
    """
:root{--bg:#fff;--fg:#1f2328;--dim:#59636e;--line:#d1d9e0;--panel:#f6f8fa;--g:#1a7f37;--gb:#d3f2dc;--r:#fff;--rb:#cf222e;
--s:#7d4e00;--sb:#fbe9b7;--q:#59636e;--qb:#dde3ea;--u:#5b3fc4;--ub:#e6dcfd}
@media(prefers-color-scheme:dark){:root{--bg:#0d1117;--fg:#e6edf3;--dim:#9198a1;--line:#30363d;--panel:#161b22;
--g:#7ee2a0;--gb:#123d22;--r:#fff;--rb:#da3633;--s:#f0cf7c;--sb:#4d3800;--q:#9198a1;--qb:#2b323b;--u:#cbb5ff;--ub:#35265f}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1600px;padding:16px;background:var(--bg);color:var(--fg);
font:15px/1.45 ui-sans-serif,system-ui,sans-serif}
h1{font-size:20px;margin:0}
h2{font-size:16px;margin:24px 0 8px}
h2 small,th small,label small{color:var(--dim);font-weight:400}
h3{font-size:14px;font-weight:400;margin:0}
h3 b{font-size:16px}
.lead{font-size:18px;font-weight:600;margin:4px 0 0}
.when{color:var(--dim);margin:2px 0 8px}
code,pre{font:12.5px/1.4 ui-monospace,monospace}
code{overflow-wrap:anywhere}
pre{background:var(--panel);border:1px solid var(--line);border-radius:6px;padding:8px;overflow:auto;margin:8px 0}
.bar{display:flex;height:10px;border-radius:5px;overflow:hidden;gap:2px}
.bar i{min-width:4px}
.g{background:var(--gb);color:var(--g)}
.r,.r a{background:var(--rb);color:var(--r)}
.s{background:var(--sb);color:var(--s)}
.q{background:var(--qb);color:var(--q)}
.u{background:var(--ub);color:var(--u)}
.bar .g{background:var(--g)}
.filter{position:sticky;top:0;z-index:3;background:var(--bg);padding:6px 0}
.filter fieldset{border:0;margin:0;padding:0;display:flex;flex-wrap:wrap;gap:4px 16px}
.filter legend{float:left;margin-right:12px;color:var(--dim)}
.filter b{display:inline-block;width:18px;text-align:center;border-radius:3px;margin:0 2px}
.causes ol{list-style:none;margin:0;padding:0}
.causes ol>li{border:1px solid var(--line);border-left:4px solid var(--rb);
border-radius:6px;padding:8px 12px;margin:0 0 8px;scroll-margin-top:80px}
.causes p{margin:2px 0;color:var(--dim)}
.causes li:target{outline:2px solid var(--rb)}
.causes ul{margin:0;padding-left:18px;max-height:320px;overflow:auto}
summary{cursor:pointer;color:var(--dim)}
.scroll{overflow:auto;max-height:85vh;border:1px solid var(--line);border-radius:6px}
table{border-collapse:separate;border-spacing:0;background:var(--bg)}
.arches{display:flex;flex-wrap:wrap;gap:0 32px}
.arches section{max-width:100%}
.m td{min-width:clamp(20px,calc(min(400px,50vw)/var(--n)),48px);height:20px;padding:0;text-align:center;
font-size:12px;line-height:20px;border:1px solid var(--bg);border-radius:4px}
.m td.x{background:none}
.m .n{border-left:7px solid var(--bg)}
.m a{display:block;text-decoration:none;border-radius:4px}
.m thead{position:sticky;top:0;z-index:2}
.m thead th{background:var(--bg);vertical-align:bottom;padding:6px 0;font-weight:400}
.m thead .f th{border-left:7px solid var(--bg);border-bottom:1px solid var(--line);padding:4px 0;color:var(--dim);
font-size:12px}
.m thead th div{writing-mode:vertical-rl;transform:rotate(180deg);font:11px/1.25 ui-monospace,monospace;
white-space:nowrap;margin:0 auto}
.m thead small{display:block}
.m tbody th{position:sticky;left:0;z-index:1;background:var(--bg);text-align:left;font-weight:500;font-size:13px;
padding:0 8px;max-width:38vw;overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
.m thead th:first-child{position:sticky;left:0;z-index:1}
.m tbody tr:hover th,.m tbody tr:hover td{filter:brightness(.93)}
.l{font-size:13px;width:100%}
.l th{text-align:left;color:var(--dim);font-weight:500}
.l td{white-space:nowrap}
.l td:last-child{white-space:normal;min-width:280px}
.l th,.l td{padding:4px 10px;border-bottom:1px solid var(--line);vertical-align:top}
.l td:nth-child(4),.l td:nth-child(5){font:12px ui-monospace,monospace}
"""
    + _FILTER
)
