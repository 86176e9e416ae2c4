// The style sheet that all reports share.
#pragma once

namespace lectern {

inline constexpr const char* kReportStyle = R"css(
:root {
  color-scheme: light dark;
  --ground: #fbfaf8; --card: #ffffff; --ink: #1c1b1a; --muted: #6a6763; --rule: #e4e0da;
  --good: #2f7d4f; --bad: #c2382f; --bad-ground: #fbe3e0; --miss-ground: #fdf0c8;
  --series-0: #3566c0; --series-1: #c4702b; --series-2: #2f8a63;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #161719; --card: #1f2124; --ink: #ebe9e6; --muted: #a19d97; --rule: #35373b;
    --good: #6cc391; --bad: #ff8a80; --bad-ground: #55211e; --miss-ground: #4c411a;
    --series-0: #7ba4f0; --series-1: #eba062; --series-2: #63c79b;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
}
main { max-width: 1080px; margin: 0 auto; padding: 2rem 1.1rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .4rem; letter-spacing: -.01em; }
h2 { font-size: 1.25rem; margin: 2.6rem 0 .3rem; }
h2 + p { margin-top: 0; }
p { max-width: 46rem; }
.lead { font-size: 1.08rem; color: var(--muted); margin: 0 0 1.4rem; }
.note, figcaption, .muted { color: var(--muted); font-size: .88rem; }
.grid { display: grid; gap: .9rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 300px), 1fr)); }
.tiles { grid-template-columns: repeat(auto-fit, minmax(140px, 1fr)); }
.words { grid-template-columns: repeat(auto-fill, minmax(min(100%, 165px), 1fr)); }
.card {
  background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: .8rem .9rem;
  margin: 0; min-width: 0; break-inside: avoid;
}
.tile b { display: block; font-size: 1.55rem; line-height: 1.25; font-weight: 650; }
.tile span { color: var(--muted); font-size: .85rem; }
dl { display: grid; grid-template-columns: auto 1fr; gap: .15rem 1rem; margin: 1rem 0 0; font-size: .92rem; }
dt { color: var(--muted); } dd { margin: 0; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { padding: .42rem .6rem; border-bottom: 1px solid var(--rule); text-align: right; white-space: nowrap; }
th { font-weight: 600; color: var(--muted); font-size: .82rem; vertical-align: bottom; }
th:first-child, td:first-child { min-width: 8.5rem; }
th:first-child, td:first-child, td.text, th.text { text-align: left; white-space: normal; }
tr.best td { font-weight: 650; }
.plot { width: 100%; height: auto; display: block; font: 11px system-ui, "DejaVu Sans", sans-serif; }
.plot text { fill: var(--muted); } .plot .title { fill: var(--ink); font-size: 13px; font-weight: 600; }
.plot .grid { stroke: var(--rule); } .plot .axis { stroke: var(--muted); }
.plot polyline { fill: none; stroke-linejoin: round; }
.plot .raw { stroke-width: 1; opacity: .28; } .plot .line { stroke-width: 2; }
.shot { background: #fff; border-radius: 6px; padding: .5rem; text-align: center; border: 1px solid var(--rule); }
.shot img { max-width: 100%; max-height: 110px; vertical-align: middle; }
.page .shot img { max-height: 560px; }
.page { display: grid; gap: .9rem; grid-template-columns: minmax(0, 5fr) minmax(0, 4fr) minmax(0, 4fr); }
@media (max-width: 760px) { .page { grid-template-columns: minmax(0, 1fr); } }
.page > figcaption { grid-column: 1 / -1; }
pre, code { font: .84rem/1.45 ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; }
pre { margin: .2rem 0 0; white-space: pre-wrap; overflow-wrap: anywhere; }
.page pre { max-height: 540px; overflow-y: auto; font-size: .74rem; }
.pair { display: grid; grid-template-columns: auto 1fr; gap: .05rem .6rem; margin: .5rem 0 0; align-items: baseline; }
figcaption { margin-top: .35rem; overflow-wrap: anywhere; }
.pair span { color: var(--muted); font-size: .78rem; }
.ok { color: var(--good); } .wrong { color: var(--bad); }
mark { color: inherit; border-radius: 2px; background: var(--miss-ground); }
mark.bad { background: var(--bad-ground); color: var(--bad); }
.command { background: var(--card); border: 1px solid var(--rule); border-radius: 8px; padding: .6rem .8rem; margin: .3rem 0 .9rem; overflow-x: auto; }
footer { margin-top: 3rem; color: var(--muted); font-size: .85rem; }
@media print {
  :root {
    color-scheme: light;
    --ground: #fff; --card: #fff; --ink: #000; --muted: #555; --rule: #ccc; --good: #2f7d4f;
    --bad: #b0261e; --bad-ground: #fbe3e0; --miss-ground: #fdf0c8;
    --series-0: #3566c0; --series-1: #c4702b; --series-2: #2f8a63;
  }
  body { font-size: 10.5pt; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  main { padding: 0; max-width: none; }
  .page pre { max-height: none; } h2 { break-after: avoid; }
  .plots { grid-template-columns: repeat(3, 1fr); } .words { grid-template-columns: repeat(5, 1fr); }
  .tiles { grid-template-columns: repeat(5, 1fr); } .tile b { font-size: 12.5pt; }
  .scroll { overflow: visible; } table { font-size: 8.5pt; } th { font-size: 7.5pt; }
  th, td { padding: .22rem .3rem; } th:first-child, td:first-child { min-width: 0; }
  .card.page { grid-template-columns: 5fr 4fr 4fr; } .page pre { font-size: 6pt; }
  .page .shot img { max-height: 300px; } .page .shot { align-self: start; } .card { padding: .5rem .6rem; }
  h2 { margin-top: 1.4rem; } .grid { gap: .5rem; }
}
)css";

}  // namespace lectern
