"""How pages and figures look."""

from typing import Any

REAL, SYNTHETIC = "#3e4c59", "#2680c2"
INK, MUTED, FAINT = "#1f2933", "#616e7c", "#cbd2d9"
# One colour and one shape per row of a comparison, so that neither has to be told by colour alone.
ROW_COLOURS = {
    "synthetic": SYNTHETIC,
    "test": REAL,
    "oracle": "#2f8f5b",
    "marginals": "#a86f2c",
    "train": "#9b4f96",
}
# For many series in one figure: Okabe and Ito, "Color Universal Design", 2008.
CYCLE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a6d1d", "#555555")

FIGURES: Any = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#9aa5b1",
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.labelsize": 9,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "grid.color": "#eceff2",
    "grid.linewidth": 0.7,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "text.color": INK,
    "xtick.color": "#52606d",
    "xtick.labelsize": 8,
    "ytick.color": "#52606d",
    "ytick.labelsize": 8,
}

PAGE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2933; max-width: 62rem;
       margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: 0; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
p.note { color: #52606d; max-width: 46rem; }
div.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px; }
th, td { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid #e4e7eb; }
th { border-bottom: 2px solid #9aa5b1; } td:first-child, th:first-child { text-align: left; }
svg { max-width: 100%; height: auto; }
"""

REPORT = """
:root {
  color-scheme: light dark;
  --ink: #1f2933; --muted: #5a6875; --faint: #8794a1; --line: #e3e7eb; --page: #f6f7f9;
  --card: #ffffff; --link: #1c64a3; --zone-good: #d9efe2; --zone-fair: #f8eacb;
  --zone-poor: #f7dada;
  --good: #237048; --fair: #8f5d0f; --poor: #b42323;
  --good-soft: #e6f4ec; --fair-soft: #fbf1da; --poor-soft: #fce8e8;
  --synthetic: #2680c2; --test: #3e4c59; --oracle: #2f8f5b; --marginals: #a86f2c; --train: #9b4f96;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e4e8ec; --muted: #a3afbb; --faint: #7b8794; --line: #2f3943; --page: #13181d;
    --card: #1b2229; --link: #7ab8ea; --zone-good: #1d3a2b; --zone-fair: #3d3115;
    --zone-poor: #422021;
    --good: #6fcf97; --fair: #e5b454; --poor: #f08a8a;
    --good-soft: #1a3327; --fair-soft: #352b14; --poor-soft: #3a1f20;
    --synthetic: #5aaae6; --test: #c3ccd5; --oracle: #5fc48e; --marginals: #d9a066;
    --train: #cf8bca;
  }
}
* { box-sizing: border-box; }
html { scroll-behavior: smooth; scroll-padding-top: 3.5rem; -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial,
  sans-serif; }
a { color: var(--link); text-underline-offset: .15em; }
:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
.skip { position: absolute; left: -99rem; }
.skip:focus { left: 1rem; top: .5rem; background: var(--card); padding: .3rem .6rem; z-index: 9; }
header.top, main, footer { max-width: 76rem; margin: 0 auto; padding: 0 1.25rem; }
header.top { padding-top: 2.25rem; }
.eyebrow { margin: 0; color: var(--muted); font-size: .8rem; letter-spacing: .07em;
  text-transform: uppercase; }
h1 { margin: .15rem 0 .3rem; font-size: 2rem; line-height: 1.2; letter-spacing: -.015em;
  overflow-wrap: anywhere; }
h2 { margin: 0 0 .35rem; font-size: 1.45rem; line-height: 1.25; letter-spacing: -.01em; }
h3 { margin: 0 0 .35rem; font-size: 1.05rem; line-height: 1.35; }
p { margin: .3rem 0 .7rem; }
.lead { color: var(--muted); max-width: 48rem; margin-bottom: .9rem; }
.note { color: var(--muted); max-width: 50rem; }
nav { position: sticky; top: 0; z-index: 5; margin-top: 1.1rem;
  background: color-mix(in srgb, var(--page) 90%, transparent); backdrop-filter: blur(8px);
  border-bottom: 1px solid var(--line); }
nav ul { display: flex; gap: 1.35rem; margin: 0 auto; padding: .6rem 1.25rem; max-width: 76rem;
  list-style: none; overflow-x: auto; white-space: nowrap; scrollbar-width: none; }
nav a { color: var(--muted); text-decoration: none; font-size: .9rem; }
nav a:hover { color: var(--ink); }
main > section { padding-top: 2.4rem; }
.facts { display: flex; flex-wrap: wrap; gap: .4rem 2.2rem; margin: .9rem 0 0; }
.facts div { min-width: 0; } .facts dt { color: var(--muted); font-size: .78rem; }
.facts dd { margin: 0; font-variant-numeric: tabular-nums; font-weight: 600; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; }

.light { display: inline-flex; align-items: center; gap: .35em; padding: .06em .6em .1em .5em;
  border-radius: 1em; font-size: .8rem; font-weight: 600; white-space: nowrap; }
.light svg { width: .8em; height: .8em; flex: none; fill: currentColor; }
.light.good { color: var(--good); background: var(--good-soft); }
.light.fair { color: var(--fair); background: var(--fair-soft); }
.light.poor { color: var(--poor); background: var(--poor-soft); }
.light.none { color: var(--muted); background: none; padding-left: 0; font-weight: 400; }

.verdicts { display: grid; gap: .75rem; margin: 1rem 0; }
.verdict { display: grid; grid-template-columns: 13.5rem 1fr; gap: .2rem 1.5rem;
  padding: 1rem 1.2rem 1.05rem; border-left: 4px solid var(--line); }
.verdict.good { border-left-color: var(--good); } .verdict.fair { border-left-color: var(--fair); }
.verdict.poor { border-left-color: var(--poor); }
.verdict h3 { margin: 0 0 .3rem; } .verdict h3 a { color: inherit; text-decoration: none; }
.verdict h3 a:hover { text-decoration: underline; }
.verdict p { margin: 0; } .verdict .says { font-size: 1.05rem; font-weight: 550; }
.bar { display: flex; height: 7px; gap: 2px; margin: .55rem 0 .35rem; max-width: 12rem; }
.bar i { border-radius: 2px; } .bar .good { background: var(--good); }
.bar .fair { background: var(--fair); opacity: .75; } .bar .poor { background: var(--poor); }
.counts { color: var(--muted); font-size: .82rem; }
.worst { margin: .5rem 0 0; padding: 0; list-style: none; font-size: .92rem; }
.worst li { margin-top: .35rem; color: var(--muted); }
.worst b { color: var(--ink); font-weight: 600; }
.worst a { color: inherit; text-decoration: none; } .worst a:hover b { text-decoration: underline; }

details { margin: .7rem 0; } summary { cursor: pointer; color: var(--link); font-size: .92rem; }
details > div { padding: .5rem 0 .2rem; }
.wide { overflow-x: auto; max-width: 100%; }
table { border-collapse: collapse; width: 100%; font-size: .86rem;
  font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--muted); padding: 0 0 .4rem; font-size: .84rem; }
th { font-weight: 600; text-align: left; }
td, th { padding: .38rem .7rem .38rem 0; border-top: 1px solid var(--line); vertical-align: top; }
thead th { border-top: 0; color: var(--muted); font-size: .78rem; font-weight: 500;
  vertical-align: bottom; }
td.n, th.n { text-align: right; }
.plain td, .plain th { white-space: nowrap; }
.plain td.text { white-space: normal; min-width: 16rem; }

.metric { padding: 1.05rem 1.2rem .6rem; margin: .9rem 0; }
.contents { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr));
  gap: .7rem 1.6rem; margin: 1rem 0; padding: 1rem 1.2rem; list-style: none; font-size: .92rem; }
.contents a { text-decoration: none; } .contents a:hover { text-decoration: underline; }
.contents .bar { margin: .35rem 0 .15rem; height: 5px; }
.contents small { color: var(--muted); font-size: .78rem; }
.scores { table-layout: fixed; }
.scores td, .scores th { padding-top: .65rem; padding-bottom: .65rem; }
.scores thead th { padding-top: 0; padding-bottom: .3rem; }
.scores tbody th { font-weight: 400; padding-right: 1.4rem; }
.scores .for-name { width: 32%; } .scores .for-strip { width: 15rem; }
.scores .name { font-weight: 600; margin-right: .5em; }
.scores .meaning { display: block; color: var(--muted); font-size: .82rem; line-height: 1.45;
  margin-top: .15rem; }
.scores td small { display: block; color: var(--faint); font-size: .75rem; line-height: 1.3; }
.scores td.synthetic { font-weight: 650; } .scores td.synthetic small { font-weight: 400; }
.scores td.strip { padding-right: 0; }
.strip svg { display: block; width: 100%; max-width: 15rem; height: auto; }
.mark { width: .85em; height: .85em; vertical-align: -.05em; margin-right: .35em; }
.zone-good { fill: var(--zone-good); } .zone-fair { fill: var(--zone-fair); }
.zone-poor { fill: var(--zone-poor); }
.row-synthetic { --c: var(--synthetic); } .row-test { --c: var(--test); }
.row-oracle { --c: var(--oracle); } .row-marginals { --c: var(--marginals); }
.row-train { --c: var(--train); }
.solid { fill: var(--c); } .hollow { fill: var(--card); stroke: var(--c); stroke-width: 1.5; }
.stroke { fill: none; stroke: var(--c); stroke-width: 1.6; }
.whisker { stroke: var(--c); stroke-width: 1.3; opacity: .75; }
.aim { stroke: var(--faint); stroke-width: 1; stroke-dasharray: 2 2; }
.ends { fill: var(--faint); font-size: 9px; }
.legend { display: flex; flex-wrap: wrap; gap: .15rem 1.3rem; margin: .6rem 0; padding: 0;
  list-style: none; color: var(--muted); font-size: .84rem; }

figure { margin: .9rem 0; padding: 1rem 1.2rem .8rem; }
figure h3 { margin-bottom: .1rem; }
figure .wide { background: #fff; border-radius: 6px; margin-top: .6rem; }
figure img { display: block; max-width: 100%; height: auto; margin: 0 auto; }
figcaption { color: var(--muted); font-size: .86rem; max-width: 50rem; }
figcaption .files { white-space: nowrap; }
footer { padding-top: 2.5rem; padding-bottom: 3rem; color: var(--muted); font-size: .85rem; }
code { font: .92em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }

@media (max-width: 60rem) {
  .scores thead { display: none; }
  .scores tr { display: grid; grid-template-columns: repeat(auto-fill, minmax(8.2rem, 1fr));
    gap: .3rem .8rem; padding: .9rem 0; border-top: 1px solid var(--line); }
  .scores tr:first-child { border-top: 0; padding-top: .2rem; }
  .scores td, .scores tbody th { display: block; border: 0; padding: 0; }
  .scores tbody th, .scores td.strip { grid-column: 1 / -1; }
  .scores td.strip { order: 2; } .strip svg { max-width: 24rem; }
  .scores td[data-row]:not(:empty)::before { content: attr(data-row); display: block;
    color: var(--muted); font-size: .75rem; font-weight: 400; }
}
@media (max-width: 40rem) {
  body { font-size: 16px; }
  header.top, main, footer { padding-left: 1rem; padding-right: 1rem; }
  header.top { padding-top: 1.4rem; } h1 { font-size: 1.6rem; }
  nav ul { padding-left: 1rem; padding-right: 1rem; }
  main > section { padding-top: 1.8rem; }
  .verdict { grid-template-columns: 1fr; padding: .9rem 1rem; }
  .metric, figure { padding-left: 1rem; padding-right: 1rem; }
  figure img.broad { max-width: none; width: 44rem; }
}
@media print {
  :root { --page: #fff; --card: #fff; }
  body { font-size: 10pt; } nav, .skip, .files { display: none; }
  header.top, main, footer { max-width: none; padding-left: 0; padding-right: 0; }
  .card { border-color: #ddd; } figure, .verdict, .scores tr { break-inside: avoid; }
  h2, h3 { break-after: avoid; } .wide { overflow: visible; }
  * { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
}
"""
