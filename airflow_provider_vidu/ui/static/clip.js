// The page of one clip: how far it is, then the clip itself.
import {
  airflow, airflowTaskPath, announce, badge, bytes, copyable, crumb, el, fill, getJson, here, isFramed, keepAsking, runPath, seconds,
  STATES, taskName, taskPath, time, topBar, zoneName,
} from "./common.js";

const STEPS = { queued: "Queued", running: "Running", done: "Done", failed: "Failed", stored: "Stored" };
const WAITS = {
  waiting: "In the service's queue",
  running: "Being made",
  unknown: "The state is not known yet",
  failed: "There is no clip",
  succeeded: "There is no clip to play",
  stored: "There is no clip to play",
};

const main = document.getElementById("main");
const parts = {};
let lastState = null;

function build() {
  const part = (name, tag, attributes) => (parts[name] = el(tag, attributes));
  main.replaceChildren(
    el("h1.hidden", {}, "Vidu clip"),
    el(
      "div.clip",
      {},
      el(
        "div.clip-main",
        {},
        part("stage", "div.stage", {}),
        part("more", "div.more", {}),
        part("alerts", "div.alerts", {}),
        part("texts", "div.texts", {}),
      ),
      el(
        "aside.clip-side",
        { "aria-label": "About this clip" },
        part("state", "section.state", {}),
        part("timeline", "section.panel", {}),
        part("facts", "section.panel", {}),
        part("files", "section.panel", {}),
      ),
    ),
  );
}

function show(view) {
  if (!parts.stage) build();
  document.title = `${STATES[view.state] ?? ""} · ${taskName({ ...view, ...view.task })} · Vidu clip`;
  fill(document.getElementById("top"), [view.dag_id, view.run_id, view.task, view.before, view.after], () => bar(view));
  showStage(view);
  fill(parts.alerts, [view.error, view.notice], () => alerts(view));
  fill(parts.texts, [view.prompt, view.enhanced_prompt], () => texts(view));
  fill(parts.state, [view.state, view.progress, view.refresh === null], () => state(view));
  fill(parts.timeline, view.timeline, timeline);
  fill(parts.facts, [view.model, view.credits, view.pieces[0], view.provider_status, view.generation_id, view.conn_id, view.tasks], () => facts(view));
  fill(parts.files, view.files, files);
  const told = `${STATES[view.state] ?? view.state}${view.progress === null ? "" : `, ${view.progress} percent`}`;
  if (lastState !== null && lastState !== told) announce(told);
  lastState = told;
}

function bar(view) {
  const run = new URL(runPath(view), airflow).pathname;
  const sheet = here.slice(0, here.indexOf("/tasks/"));
  const task = { ...view, ...view.task };
  const step = (other, label, sign) =>
    other === null
      ? null
      : el("a.plain", { href: sheet + taskPath(other), "aria-label": `${label} clip`, title: `${label} clip (${sign === "‹" ? "←" : "→"})`, rel: label === "Next" ? "next" : "prev" }, sign);
  return topBar(
    [
      crumb(view.dag_id, `${new URL("dags/", airflow).pathname}${encodeURIComponent(view.dag_id)}`),
      crumb(view.run_id, run),
      crumb(taskName(task), run + airflowTaskPath(task)),
    ],
    [step(view.before, "Previous", "‹"), step(view.after, "Next", "›"), el("a.plain", { href: sheet }, "All clips of this run")],
  );
}

function showStage(view) {
  const [first, ...others] = view.pieces;
  if (first.width > 0 && first.height > 0) {
    parts.stage.style.setProperty("--shape", `${first.width} / ${first.height}`);
  }
  if (first.from) {
    // A player that runs is never replaced.
    fill(parts.stage, [first.from, first.medium], () => player(parts.stage, first, 0));
  } else {
    parts.stage.classList.remove("is-audio");
    fill(parts.stage, [view.state, view.progress, first, view.done], () => placeholder(view, first));
  }
  fill(parts.more, others.map((piece) => [piece.from, piece.medium, piece.reason]), () => others.map((piece, at) => another(piece, at + 1)));
}

/** One more creation or file of the same generation. */
function another(piece, index) {
  const place = el("div.stage", {});
  if (piece.width > 0 && piece.height > 0) place.style.setProperty("--shape", `${piece.width} / ${piece.height}`);
  place.append(piece.from ? player(place, piece, index) : still("!", piece.reason ?? WAITS.succeeded));
  return el("figure.piece", {}, place, el("figcaption.quiet", {}, piece.name ?? `Creation ${index + 1}`));
}

/** Make what shows or plays a piece; in its place comes the reason when it does not. */
function player(place, piece, index) {
  const src = `${here}/file?piece=${index}`;
  const label = index ? `Piece ${index + 1}` : "The clip";
  place.classList.toggle("is-audio", piece.medium === "audio");
  const failed = async (shown) => {
    // The name of a file tells little: what does not play may be a picture.
    if (piece.from === "service" && shown.tagName === "VIDEO") shown.replaceWith(picture(src, label, failed));
    else shown.replaceWith(still("!", await whyNot(src)));
  };
  if (piece.medium === "image") return picture(src, label, failed);
  const attributes = { controls: true, preload: "metadata", src, "aria-label": label, tabindex: "0" };
  const media =
    piece.medium === "audio"
      ? el("audio", attributes)
      : el("video", { ...attributes, playsinline: true, poster: piece.has_cover ? `${here}/cover?piece=${index}` : null });
  media.addEventListener("loadedmetadata", () => {
    if (media.videoWidth) place.style.setProperty("--shape", `${media.videoWidth} / ${media.videoHeight}`);
    else place.classList.add("is-audio");
  });
  media.addEventListener("error", () => failed(media));
  return media;
}

function picture(src, label, failed) {
  const image = el("img", { src, alt: label });
  image.addEventListener("load", () => image.parentElement?.style.setProperty("--shape", `${image.naturalWidth} / ${image.naturalHeight}`));
  image.addEventListener("error", () => failed(image));
  return image;
}

/** Ask why a piece does not play. */
async function whyNot(src) {
  let reason = "This browser cannot play the clip.";
  try {
    // Two bytes are enough to know; where a link would be followed, this is told without following it.
    const answer = await fetch(src, { headers: { Range: "bytes=0-1" }, redirect: "manual" });
    if (answer.type === "opaqueredirect") {
      reason = "The service's link to this clip no longer works. Reload the page to ask for a new one.";
    } else if (!answer.ok) {
      reason = (await answer.json()).detail;
    }
  } catch {
    reason = "The clip could not be loaded.";
  }
  announce(reason);
  return reason;
}

function placeholder(view, piece) {
  const text = piece.reason ?? WAITS[view.state] ?? WAITS.unknown;
  if (view.done || view.state === "failed") return still(view.state === "failed" ? "×" : "!", text);
  return el("div.still", {}, el("div.pulse", { "aria-hidden": "true" }), el("p", {}, text, view.progress === null ? "" : ` · ${view.progress} %`));
}

function still(sign, text) {
  return el("div.still", {}, el("div.sign", { "aria-hidden": "true" }, sign), el("p", {}, text));
}

function state(view) {
  return [
    el(
      "div.state-line",
      {},
      badge(view.state),
      view.refresh !== null && el("span.live", { title: "This page refreshes by itself" }, "live"),
    ),
    view.progress !== null &&
      el(
        "div.progress",
        { role: "progressbar", "aria-valuenow": view.progress, "aria-valuemin": 0, "aria-valuemax": 100, "aria-label": "Progress" },
        progressBar(view.progress),
      ),
  ];
}

function progressBar(percent) {
  const filled = el("div.progress-filled");
  filled.style.width = `${percent}%`;
  return filled;
}

function alerts(view) {
  const { error, notice } = view;
  return [
    error &&
      el(
        "div.alert.is-error",
        { role: "alert" },
        el("h2", {}, error.title),
        el("p", {}, error.code && el("code", {}, error.code), error.code && error.message ? " · " : "", error.message),
        error.advice && el("p.quiet", {}, error.advice),
      ),
    notice &&
      el(
        "div.alert.is-notice",
        { role: "status" },
        el("h2", {}, "The state is not known"),
        el("p", {}, notice.message),
        notice.advice && el("p.quiet", {}, notice.advice),
      ),
  ];
}

function texts(view) {
  const block = (title, text) => text && el("section.panel", {}, el("h2", {}, title), el("p.prose", {}, text));
  return [block("Prompt", view.prompt), block("Enhanced prompt", view.enhanced_prompt)];
}

function timeline(steps) {
  const item = (step) =>
    el(
      `li${step.reached ? ".reached" : ""}${step.current ? ".current" : ""}${step.name === "failed" ? ".failed" : ""}`,
      { "aria-current": step.current ? "step" : null },
      el("span.step", {}, STEPS[step.name]),
      el("span.when", {}, step.at ? time(step.at, step.is_exact) : step.reached ? "–" : ""),
      el("span.took", {}, step.seconds ? `+ ${seconds(step.seconds)}` : ""),
    );
  return [el("h2", {}, `Timeline (${zoneName()})`), el("ol.timeline", {}, steps.map(item))];
}

function facts(view) {
  const details = view.pieces[0];
  const size = details.width && details.height ? `${details.width} × ${details.height}` : null;
  const length = details.duration ? seconds(details.duration) : null;
  const rows = [
    ["Model", view.model],
    ["Credits", view.credits],
    ["Clip", [length, size, details.fps && `${details.fps} fps`].filter(Boolean).join(" · ")],
    ["Reported as", view.provider_status && el("q", {}, view.provider_status)],
    ["Generation", view.generation_id && copyable(view.generation_id, "the id")],
    ["Connection", view.conn_id],
    ["Tasks", el("ul.tasks", {}, view.tasks.map((task) => taskItem(view, task)))],
  ];
  return [el("h2", {}, "Details"), list(rows)];
}

function taskItem(view, task) {
  const href = new URL(runPath(view), airflow).pathname + airflowTaskPath(task);
  const tried = task.try_number > 1 ? `, try ${task.try_number}` : "";
  return el("li", {}, crumb(taskName(task), href), el("span.quiet", {}, ` ${task.state ?? "no status"}${tried}`));
}

function files(found) {
  if (!found.length) return [];
  const item = (file) =>
    list([
      ["Stored at", copyable(file.uri, "the address")],
      ["Size", `${bytes(file.size)} (${file.size.toLocaleString()} bytes)`],
      ["Type", file.content_type],
      ["SHA-256", file.sha256 && copyable(file.sha256, "the SHA-256")],
    ]);
  return [el("h2", {}, found.length > 1 ? "Files" : "File"), ...found.map(item)];
}

function list(rows) {
  const kept = rows.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return el("dl", {}, kept.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value instanceof Node ? value : String(value)))));
}

// Thirty clips are reviewed with thirty keys; a player keeps its own.
document.addEventListener("keydown", (event) => {
  const wanted = { ArrowLeft: "prev", ArrowRight: "next" }[event.key];
  const isTaken = event.altKey || event.ctrlKey || event.metaKey || event.shiftKey || event.target.closest("video, audio, input");
  if (wanted && !isTaken) document.querySelector(`.actions a[rel=${wanted}]`)?.click();
});

if (isFramed) document.documentElement.dataset.framed = "true";
keepAsking(async () => {
  const view = await getJson(`${here}/clip.json`);
  show(view);
  return view.refresh && Math.max(view.refresh, view.pause);
});
