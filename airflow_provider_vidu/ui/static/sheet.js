// The contact sheet: every clip of a DAG run.
import { airflow, announce, badge, crumb, el, fill, getJson, here, isFramed, keepAsking, runPath, STAGES, taskName, taskPath, topBar } from "./common.js";

const SIZE = 24;
const main = document.getElementById("main");
const parts = {};
const asked = new URLSearchParams(location.search);
let stage = asked.get("stage") in STAGES ? asked.get("stage") : null;
let offset = Math.max(0, Number.parseInt(asked.get("offset") ?? "0", 10) || 0);
const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    seen.unobserve(entry.target);
    entry.target.src = entry.target.dataset.src;
  }
});

function build() {
  const part = (name, tag, attributes) => (parts[name] = el(tag, attributes));
  main.replaceChildren(
    el("h1", {}, "Clips of this run"),
    part("filters", "div.filters", { role: "group", "aria-label": "Show" }),
    part("grid", "ul.grid", {}),
    part("empty", "div", {}),
    part("pages", "nav.pages", { "aria-label": "Pages" }),
  );
}

function show(view) {
  if (!parts.grid) build();
  fill(document.getElementById("top"), [view.dag_id, view.run_id], () =>
    topBar([crumb(view.dag_id, `${new URL("dags/", airflow).pathname}${encodeURIComponent(view.dag_id)}`), crumb(view.run_id, new URL(runPath(view), airflow).pathname)], []),
  );
  const all = Object.values(view.counts).reduce((sum, count) => sum + count, 0);
  fill(parts.filters, [view.counts, stage], () => (all ? filters(view.counts, all) : []));
  showGrid(view.clips);
  fill(parts.empty, [all, view.total, view.is_over, view.is_cut], () => empty(view, all));
  fill(parts.pages, [view.total, view.offset], () => pages(view));
}

function showGrid(clips) {
  const kept = new Map([...parts.grid.children].map((card) => [card.dataset.id, card]));
  parts.grid.replaceChildren(
    ...clips.map((clip) => {
      const id = clip.generation_id ?? taskPath(clip);
      const card = kept.get(id) ?? el("li.card", { "data-id": id });
      fill(card, clip, cardOf);
      return card;
    }),
  );
}

function cardOf(clip) {
  const name = taskName(clip);
  const link = el(
    "a",
    { href: here + taskPath(clip) },
    el("div.thumb", {}, thumb(clip), badge(clip.state, clip.qualifier), clip.progress !== null && el("span.percent", {}, `${clip.progress} %`)),
    el("div.card-text", {}, el("p.card-prompt", {}, clip.prompt ?? clip.generation_id ?? name), el("p.quiet", {}, [name, clip.model].filter(Boolean).join(" · "))),
    clip.error && el("p.card-error", {}, clip.error.code ?? clip.error.message),
  );
  return [link, clip.medium === "audio" && clip.can_play && sound(clip)];
}

/** Sound is played on the card itself; nothing is fetched before. */
function sound(clip) {
  const audio = el("audio", { controls: true, preload: "none", src: `${here}${taskPath(clip)}/file`, "aria-label": "The clip" });
  audio.addEventListener("error", () => audio.remove());
  return audio;
}

function thumb(clip) {
  const path = here + taskPath(clip);
  if (clip.medium === "audio" && clip.can_play) return el("div.note", { "aria-hidden": "true" }, "♪");
  if (clip.has_cover) return picture(`${path}/cover`);
  if (!clip.can_play) return null;
  if (clip.medium === "image") return picture(`${path}/file`);
  // No cover: the first picture of the clip, fetched when the card comes into view.
  const video = el("video", { muted: true, playsinline: true, preload: "metadata", tabindex: "-1", "aria-hidden": "true" });
  video.dataset.src = `${path}/file#t=0.1`;
  // The name of a file tells little: what does not play may be a picture.
  video.addEventListener("error", () => video.replaceWith(picture(`${path}/file`)));
  seen.observe(video);
  return video;
}

function picture(src) {
  const image = el("img", { src, alt: "", loading: "lazy" });
  image.addEventListener("error", () => image.remove());
  return image;
}

function filters(counts, all) {
  const button = (key, text, count) =>
    el("button.plain", { type: "button", "aria-pressed": String(stage === key), disabled: !count && stage !== key, onclick: () => go(key, 0) }, `${text} ${count}`);
  return [button(null, "All", all), ...Object.entries(STAGES).map(([key, text]) => button(key, text, counts[key]))];
}

function empty(view, all) {
  if (view.is_cut) return el("p.quiet", {}, "This run has more tasks with clips than are looked at; the first ones are shown.");
  if (all && !view.total) return el("p.quiet", {}, "No clip is in this state now.");
  if (all) return [];
  return el(
    "div.nothing",
    {},
    el("h2", {}, view.is_over ? "This run has made no clips" : "No clips yet"),
    el("p", {}, "Clips of ViduGenerateOperator, ViduGenerationSensor and ViduDownloadOperator appear here as soon as their generation has an id."),
  );
}

function pages(view) {
  if (view.total <= SIZE && !view.offset) return [];
  const last = Math.min(view.offset + view.clips.length, view.total);
  const button = (text, to, isOff) => el("button.plain", { type: "button", disabled: isOff, onclick: () => go(stage, to) }, text);
  return [
    button("‹ Previous", Math.max(0, view.offset - SIZE), view.offset === 0),
    el("span", {}, view.total ? `${view.offset + 1}–${last} of ${view.total}` : ""),
    button("Next ›", view.offset + SIZE, last >= view.total),
  ];
}

function go(wantedStage, wantedOffset) {
  stage = wantedStage;
  offset = wantedOffset;
  const query = new URLSearchParams();
  if (stage) query.set("stage", stage);
  if (offset) query.set("offset", String(offset));
  history.replaceState(null, "", `${here}${query.size ? `?${query}` : ""}`);
  again().then(() => announce(parts.pages.querySelector("span")?.textContent || "Shown"));
}

if (isFramed) document.documentElement.dataset.framed = "true";
const again = keepAsking(async () => {
  const query = new URLSearchParams({ offset: String(offset), limit: String(SIZE), ...(stage ? { stage } : {}) });
  const view = await getJson(`${here}/clips.json?${query}`);
  show(view);
  const isBusy = !view.is_over || view.clips.some((clip) => clip.progress !== null);
  return isBusy ? Math.max(view.counts.working ? 5 : 15, view.pause) : null;
});
