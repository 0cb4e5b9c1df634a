"""One HTML page that needs nothing beside it: table, plot, and every story's videos side by side."""

from __future__ import annotations

import base64
import html
import json
from pathlib import Path
from tempfile import TemporaryDirectory

from vidgen_core.evaluation.results import Results, Scored, title_of
from vidgen_core.evaluation.statistics import Interval
from vidgen_core.metrics.footage import TITLES
from vidgen_core.video import VideoReader
from vidgen_core.video_writer import VideoWriter, make_plain

STYLE = """
:root { color-scheme: light dark; --ink: #1f2a33; --faint: #6b7785; --line: #d9dee3; --paper: #fff; --card: #f6f8f9;
  --good: #2a9d6f; --bad: #c8553d }
@media (prefers-color-scheme: dark) { :root { --ink: #e6ebef; --faint: #97a3ae; --line: #36414b; --paper: #161c21;
  --card: #1f272e } }
body { font: 15px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 1180px;
  margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem; margin: 0 0 .2rem } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem }
.faint { color: var(--faint) }
table { border-collapse: collapse; font-variant-numeric: tabular-nums } th, td { padding: .25rem .8rem .25rem 0;
  text-align: right; border-bottom: 1px solid var(--line) } th:first-child, td:first-child { text-align: left }
td small { color: var(--faint); display: block } .wide { overflow-x: auto }
.plot { max-width: 100%; background: #fff; border-radius: 6px }
.story { background: var(--card); border-radius: 8px; padding: .8rem 1rem; margin: .8rem 0 }
.story h3 { font-size: .95rem; margin: 0 0 .3rem } ol { margin: 0 0 .6rem; padding-left: 1.3rem; color: var(--faint) }
ol li.now { color: var(--ink); font-weight: 600 } .videos { display: flex; flex-wrap: wrap; gap: .9rem }
figure { margin: 0; width: 168px }
video { width: 168px; min-height: 90px; display: block; border-radius: 4px; image-rendering: pixelated }
figcaption { font-size: .8rem; margin-top: .25rem } .chips span { display: inline-block; font-size: .72rem;
  padding: 0 .35rem; margin: .1rem .15rem 0 0; border-radius: 3px; border: 1px solid var(--line) }
.chips .full { color: var(--good); border-color: var(--good) }
.chips .none { color: var(--bad); border-color: var(--bad) }
button { font: 400 .85rem system-ui, sans-serif; padding: .15rem .7rem; margin-left: .5rem }
"""

SCRIPT = """
const stories = [...document.querySelectorAll('.story')];
let playing = true;
// Browsers open only so many videos at a time: those out of sight are closed.
const seen = new IntersectionObserver(entries => entries.forEach(e => {
  e.target.inView = e.isIntersecting;
  e.target.querySelectorAll('video').forEach(v => {
    if (e.isIntersecting) v.src = v.dataset.src; else { v.removeAttribute('src'); v.load(); }
  });
  start(e.target);
}), { rootMargin: '200px' });
function start(story) {
  const videos = [...story.querySelectorAll('video')];
  if (!story.inView || !playing) { videos.forEach(v => v.pause()); return; }
  videos.forEach(v => { v.currentTime = 0; v.play().catch(() => {}); });
}
stories.forEach(story => {
  seen.observe(story);
  const videos = [...story.querySelectorAll('video')], lines = [...story.querySelectorAll('li')];
  const stops = JSON.parse(story.dataset.stops), last = stops[stops.length - 1];
  videos.forEach(v => v.addEventListener('ended', () => {
    if (videos.every(w => w.ended)) setTimeout(() => start(story), 400);
  }));
  if (videos[0]) videos[0].addEventListener('timeupdate', () => {
    const frame = videos[0].currentTime / videos[0].duration * last, now = stops.findIndex(stop => frame < stop);
    lines.forEach((line, i) => line.classList.toggle('now', i === now));
  });
});
document.querySelector('#toggle')?.addEventListener('click', e => {
  playing = !playing; e.target.textContent = playing ? 'Pause' : 'Play'; stories.forEach(start);
});
"""


def write_page(results: Results, path: Path, plot: Path, most: int) -> Path:
    """Write the page; returns its path.

    Args:
        plot: The PNG to show.
        most: Stories whose videos are put into the page; the others are only counted.
    """
    stories = sorted({(video.story, video.seed) for video in results.videos})
    shown = stories[:most]
    left = f" The first {len(shown)} of {len(stories)} are shown." if len(shown) < len(stories) else ""
    parts = [
        "<!doctype html><html lang='en'><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        f"<title>{_text(results.title)}</title><style>{STYLE}</style>",
        f"<h1>{_text(results.title)}</h1>",
        f"<p class='faint'>{results.extent}; points with 95 % intervals.</p>",
        _table(results, [(row, label, results.mean) for row, label in results.rows.items()]),
    ]
    others = results.others()
    if others:
        parts.append(f"<h2>{_text(results.rows[results.reference])} minus the others</h2>")
        parts.append(_table(results, [(row, results.rows[row], results.difference) for row in others], "+"))
    parts.append(f"<h2>Means and intervals</h2><img class='plot' alt='plot' src='{_data(plot, 'image/png')}'>")
    parts.append(f"<h2>Videos <button id='toggle'>Pause</button></h2><p class='faint'>{left.strip()}</p>")
    seeds = len({seed for _, seed in stories}) > 1
    sources: dict[Path | None, str] = {None: ""}  # the figure of each clip that videos are edits of, encoded once
    for story, seed in shown:
        videos = [video for video in results.videos if (video.story, video.seed) == (story, seed)]
        source = videos[0].source
        if source is not None and source not in sources:
            sources[source] = _source(source)
        parts.append(_story(results, videos, f"{story}, seed {seed}" if seeds else story, sources[source]))
    parts.append(f"<script>{SCRIPT}</script></html>\n")
    path.write_text("\n".join(parts), encoding="utf-8")
    return path


def _table(results: Results, rows: list, sign: str = "") -> str:
    heading = "".join(f"<th>{_text(title_of(column))}</th>" for column in results.columns)
    lines = [f"<tr><th></th>{heading}</tr>"]
    for row, label, value in rows:
        cells = "".join(f"<td>{_cell(results, column, value(row, column), sign)}</td>" for column in results.columns)
        lines.append(f"<tr><td>{_text(label)}</td>{cells}</tr>")
    return f"<div class='wide'><table>{''.join(lines)}</table></div>"


def _cell(results: Results, column: str, value: Interval | None, sign: str) -> str:
    if value is None:
        return "-"
    mean, low, high = (results.shown(column, number, sign) for number in (value.mean, value.low, value.high))
    return f"{mean}<small>{low} to {high}</small>"


def _story(results: Results, videos: list[Scored], title: str, source: str) -> str:
    first = videos[0]
    lines = "".join(f"<li>{_text(caption)}</li>" for caption in first.captions)
    stops = json.dumps([span.stop for span in first.spans])
    figures = source + "".join(_figure(results, video) for video in videos)
    return (
        f"<section class='story' data-stops='{stops}'><h3>{_text(title)}</h3><ol>{lines}</ol>"
        f"<div class='videos'>{figures}</div></section>"
    )


def _source(path: Path) -> str:
    """The clip that videos are edits of."""
    clip = VideoReader(path)
    with TemporaryDirectory() as place:  # encoded anew: browsers play few of the formats that clips come in
        writer = VideoWriter(Path(place) / "source.mp4", round(clip.fps) or 8)
        writer.write(clip.frames(range(len(clip))))
        writer.close()
        make_plain(writer.path)
        data = _data(writer.path, "video/mp4")
    return f"<figure><video muted playsinline data-src='{data}'></video><figcaption>Source</figcaption></figure>"


def _figure(results: Results, video: Scored) -> str:
    chips = []
    for column in (column for column in results.columns if column not in results.of_sets):
        value = video.scores.get(column)
        share = column not in results.numbers
        kind = "full" if share and value == 1 else "none" if share and value == 0 else ""
        shown = "no score" if value is None else f"{100 * value:.0f}" if column in TITLES else f"{value:.2f}"
        chips.append(f"<span class='{kind}'>{_text(title_of(column))} {shown}</span>")
    return (
        f"<figure><video muted playsinline data-src='{_data(video.path, 'video/mp4')}'></video>"
        f"<figcaption>{_text(results.rows.get(video.row, video.row))}<div class='chips'>{''.join(chips)}</div>"
        "</figcaption></figure>"
    )


def _data(path: Path, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def _text(text: str) -> str:
    return html.escape(str(text), quote=True)
