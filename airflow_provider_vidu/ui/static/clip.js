// The page of one clip: how far it is, then the clip itself.
import {
  airflow, airflowTaskPath, announce, badge, bytes, clipPath, copyable, copyButton, crumb, download, el, fill, getJson, haltedAlert, here, isFramed,
  keepAsking, logPath, plainCrumb, retryText, retryTitle, runPath, seconds, SHEET_SIZE, STATES, stateText, taskName, time, topBar, zoneName,
} from "./common.js";
import { slotPanel, slotText } from "./slot.js";

const STEPS = { queued: "Submitted", running: STATES.running, done: STATES.succeeded, failed: STATES.failed, stored: STATES.stored };
const WAITS = {
  waiting: "Waiting in the service's queue",
  running: "Running: the service is making the clip",
  unknown: "The state is not known yet",
  failed: "There is no clip",
  succeeded: "There is no clip to play",
};

const main = document.getElementById("main");
const parts = {};
let lastState = null;
let shown = null;
let clock = 0; // milliseconds that the server's clock is ahead of this one

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
        part("state", "section.state", { "aria-label": "State" }),
        part("outlook", "section.panel", {}),
        part("timeline", "section.panel", {}),
        part("facts", "section.panel", {}),
        part("files", "section.panel", {}),
      ),
    ),
  );
}

function show(view) {
  shown = view;
  if (!parts.stage) build();
  document.title = `${stateText(view.state, view.qualifier)} · ${taskName({ ...view, ...view.task })} · Vidu clip`;
  fill(document.getElementById("top"), [view.dag_id, view.run_id, logPath(view.task), view.before, view.after, view.place], () => bar(view));
  showStage(view);
  fill(parts.alerts, [view.error, view.notice, view.is_unattended, view.done, view.state, view.next_try, view.halted, zoneName()], () => alerts(view));
  fill(parts.texts, [view.prompt, view.enhanced_prompt], () => texts(view));
  fill(parts.state, [view.state, view.qualifier, view.progress, view.refresh === null], () => state(view));
  clock = Date.parse(view.now) - Date.now();
  fill(parts.outlook, [view.outlook, view.refresh, view.slot, zoneName()], () => (view.slot ? slotPanel(view, list) : outlook(view)));
  tick();
  fill(parts.timeline, [view.timeline, zoneName()], ([steps]) => (steps.length ? timeline(steps) : []));
  fill(parts.facts, [view.label, view.model, view.parameters, view.seconds, view.credits, view.reused_from, view.pieces[0], view.provider_status, view.generation_id, view.conn_id, view.tasks, zoneName()], () => facts(view));
  fill(parts.files, [view.files, view.can_download], () => files(view));
  const told = `${stateText(view.state, view.qualifier)}${view.progress === null ? "" : `, ${view.progress} percent`}`;
  if (lastState !== null && lastState !== told) announce(told);
  lastState = told;
}

function bar(view) {
  const run = new URL(runPath(view), airflow).pathname;
  // A row's sheet is that of its batch.
  const sheet = view.row ? here.slice(0, here.lastIndexOf("/rows/")) : here.slice(0, here.indexOf("/tasks/"));
  const own = { ...view, ...view.task };
  const step = (place, label, sign, letter) =>
    el(
      place ? "a.plain" : "span.plain.is-off",
      place
        ? { href: sheet + clipPath(place), "aria-label": `${label} clip`, title: `${label} clip (${letter} or ${label === "Next" ? "→" : "←"})`, rel: label === "Next" ? "next" : "prev" }
        : { "aria-hidden": "true" },
      sign,
    );
  const steps = view.before || view.after ? [step(view.before, "Previous", "‹", "p"), view.place && el("span.place", {}, `${view.place[0]} of ${view.place[1]}`), step(view.after, "Next", "›", "n")] : [];
  return topBar(
    [
      crumb(view.dag_id, `${new URL("dags/", airflow).pathname}${encodeURIComponent(view.dag_id)}`),
      crumb(view.run_id, run),
      crumb(taskName(own), run + airflowTaskPath(own)),
      view.row && crumb(view.key),
    ],
    [
      ...steps,
      el("a.plain", { href: sheet + pageOf(view.place), rel: "up", title: `All clips of this ${view.row ? "batch" : "run"} (u or Esc)` }, "All clips"),
      plainCrumb("Task", run + airflowTaskPath(own, "/details"), "The task in Airflow"),
      plainCrumb("Log", run + logPath(view.task), "The task's log in Airflow"),
      plainCrumb("Run", run, "The DAG run in Airflow"),
    ],
  );
}

/** The query of the sheet's page with a clip of this place, in the order that the keys follow. */
function pageOf(place) {
  const offset = place ? Math.floor((place[0] - 1) / SHEET_SIZE) * SHEET_SIZE : 0;
  return offset ? `?offset=${offset}` : "";
}

function showStage(view) {
  const [first, ...others] = view.pieces;
  if (first.width > 0 && first.height > 0) {
    parts.stage.style.setProperty("--shape", `${first.width} / ${first.height}`);
  }
  if (first.from) {
    // A player that runs is never replaced, unless the task was cleared and has made another clip.
    fill(parts.stage, [view.generation_id, first.from, first.medium], () => player(parts.stage, first, 0));
  } else {
    parts.stage.classList.remove("is-audio");
    fill(parts.stage, [view.state, view.progress, first, view.done, view.slot, zoneName()], () => placeholder(view, first));
  }
  fill(parts.more, [view.generation_id, others.map((piece) => [piece.from, piece.medium, piece.reason])], () => others.map((piece, at) => another(piece, at + 1)));
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
    // The name of a file proves little: what does not play may be a picture.
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
    // Two bytes are enough; a link to elsewhere is reported without following it.
    const answer = await fetch(src, { headers: { Range: "bytes=0-1" }, redirect: "manual" });
    if (answer.type === "opaqueredirect") {
      reason = "The service's link to this clip does not work. Reload the page to request a new one.";
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
  const isOpen = view.state === "failed" && !view.done; // the task has failed, and the generation may be fine
  const open = view.progress === null ? "It is not known whether there is a clip" : "Not ready: the generation continues at the service";
  const text = view.slot ? slotText(view.slot) : isOpen ? open : piece.reason ?? WAITS[view.state] ?? WAITS.unknown;
  if (view.done || view.state === "failed") return still(view.state === "failed" && !isOpen ? "×" : "!", text);
  return el("div.still", {}, el("div.pulse", { "aria-hidden": "true" }), el("p", {}, text, view.progress === null || view.state === "waiting" ? "" : ` · ${view.progress} %`));
}

function still(sign, text) {
  return el("div.still", {}, el("div.sign", { "aria-hidden": "true" }, sign), el("p", {}, text));
}

function state(view) {
  return [
    el(
      "div.state-line",
      {},
      badge(view.state, view.qualifier),
      view.refresh !== null && el("span.live.by-page", { title: "This page refreshes by itself" }, "live"),
    ),
    view.progress !== null &&
      el(
        "div.progress",
        { role: "progressbar", "aria-valuenow": view.progress, "aria-valuemin": 0, "aria-valuemax": 100, "aria-label": "Progress" },
        progressBar(view.progress),
      ),
  ];
}

const PLACES = {
  triggerer: "in the triggerer",
  unassigned: "for a triggerer: none runs it",
  worker: "in a worker",
};

/** What an operator asks while it runs: how long already, when was it polled, when next, when should it end. */
function outlook(view) {
  const found = view.outlook;
  if (!found) return [];
  const rows = [
    ["Elapsed", found.since.at && el("span", { "data-elapsed": found.since.at }, "")],
    ["Last poll", lastPoll(found)],
    ["Next poll", nextPoll(view)],
    ["Should end", shouldEnd(found)],
    ["Waits", found.waits && el("span", {}, PLACES[found.waits], found.waiting_since && [", since ", time(found.waiting_since)])],
    ["Timeout", found.deadline && time(found.deadline)],
  ];
  return [el("h2", {}, `Now (times in ${zoneName()})`), list(rows)];
}

function lastPoll({ asked_at: asked, answered_at: answered }) {
  if (!asked) return "none by this page yet";
  if (asked === answered) return time(asked);
  return el("span", {}, time(asked), ", failed", answered && ["; last answer ", time(answered)]);
}

function nextPoll(view) {
  const { interval, is_adaptive: isAdaptive, has_callback: hasCallback, is_slower: isSlower, next_poll: next } = view.outlook;
  const within = isSlower ? ", later each time while its polls fail" : ` within ${seconds(Math.max(view.refresh, view.pause))}`;
  const own = view.refresh === null ? null : el("span.by-page", {}, `by this page${within}`);
  const theirs = next
    ? el("span", {}, "by Airflow between ", time(next.since), " and ", time(next.at))
    : interval && hasCallback
      ? `by Airflow when the service calls back, at the latest after about ${seconds(interval)}`
      : interval
      ? `by Airflow ${isAdaptive ? "about every" : "every"} ${seconds(interval)}${isSlower ? ", less often while its polls fail" : ""}`
      : null;
  if (own && theirs) own.append("; ");
  return own || theirs ? el("span", {}, own, theirs) : null;
}

function shouldEnd(found) {
  if (!found.ends) return null;
  const usual = found.usual && `${found.usual.count} other ${found.usual.count === 1 ? "clip" : "clips"} of this task took ${seconds(found.usual.seconds)}${found.usual.count > 1 ? " (median)" : ""}`;
  const isLate = Date.parse(found.ends.at) < Date.now() + clock;
  const beyond = found.deadline && Date.parse(found.ends.at) > Date.parse(found.deadline) && ", which is after its timeout";
  if (found.ends.by === "progress") return el("span", {}, "about ", time(found.ends.at), ", by its progress", beyond);
  return isLate ? `later than usual: ${usual}` : el("span", {}, "about ", time(found.ends.at), `: ${usual}`);
}

/** Let the elapsed time run between two answers of the server. */
function tick() {
  for (const place of document.querySelectorAll("[data-elapsed]")) {
    const left = (Date.now() + clock - Date.parse(place.dataset.elapsed)) / 1000;
    place.textContent = (shown.outlook.since.is_exact ? "" : "at least ") + seconds(Math.max(0, Math.round(left)));
  }
}

function progressBar(percent) {
  const filled = el("div.progress-filled");
  filled.style.width = `${percent}%`;
  return filled;
}

function alerts(view) {
  const { error, notice } = view;
  return [
    view.halted && haltedAlert(view.halted),
    // First: with it, the error is one of the past.
    view.next_try && el("div.alert.is-notice", { role: "status" }, el("h2", {}, retryTitle(view.next_try, view.halted)), el("p", {}, ...retryText(view.next_try, view.halted))),
    error &&
      el(
        "div.alert.is-error",
        { role: "alert" },
        el("h2", {}, error.title),
        el("p", {}, error.code && el("code", {}, error.code), error.code && error.message ? " · " : "", error.message),
        error.trace_id && el("p", {}, "Trace id: ", el("code", {}, error.trace_id)),
        error.advice && el("p.quiet", {}, error.advice),
        error.cost && el("p.quiet", {}, error.cost),
        ways(view),
      ),
    view.is_unattended &&
      el(
        "div.alert.is-notice",
        { role: "status" },
        el("h2", {}, "No triggerer runs this wait"),
        el("p", {}, `The task does not go on until one does: check that a triggerer runs, and its capacity. ${view.slot ? "Nothing is submitted or paid meanwhile." : atService(view)}`),
        !error && ways(view),
      ),
    notice &&
      el(
        "div.alert.is-notice",
        { role: "status" },
        el("h2", {}, noticeTitle(view)),
        el("p", {}, notice.code && el("code", {}, notice.code), notice.code && " · ", notice.message),
        notice.trace_id && el("p", {}, "Trace id: ", el("code", {}, notice.trace_id)),
        notice.advice && el("p.quiet", {}, notice.advice),
        !error && !view.is_unattended && ways(view),
      ),
  ];
}

/** What becomes of a generation while its task does not go on. */
function atService({ done, state, notice }) {
  if (done) return "The generation itself has ended at the service.";
  const isKnown = !notice && state !== "unknown";
  return `${isKnown ? "The generation itself goes on at the service" : "What has become of the generation itself is not known here"}; it is not paid for again.`;
}

function noticeTitle({ state, notice }) {
  if (state === "stored") return "Not everything about this clip is known"; // that it is stored, is
  return notice.is_old ? "The state is the last known one: the service could not be queried since" : "The state is not known";
}

/** What helps next: the log of each task that failed (or else of the page's own), and a text to ask others with. */
function ways(view) {
  const run = new URL(runPath(view), airflow).pathname;
  const failed = view.tasks.filter((task) => ["failed", "upstream_failed"].includes(task.state));
  const logs = (failed.length ? failed : [view.task]).slice(0, 3);
  const text = el("pre.support", { tabindex: "0", "aria-label": "Text for support" }, view.support);
  const more = el("details", {}, el("summary", {}, "Show what is copied"), text);
  const copy = copyButton("Copy for support", "the text for support", view.support, () => {
    more.open = true;
    return text;
  });
  const links = logs.map((task) => plainCrumb(`Log of ${taskName(task)}`, run + logPath(task), "The task's log in Airflow"));
  return el("div", {}, el("div.actions", {}, ...links, view.support && copy), view.support && more);
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
      el("span.took", {}, step.seconds ? `+ ${seconds(step.seconds)}` : ""),
      el("span.when", {}, ...when(step)),
    );
  return [el("h2", {}, `Timeline (times in ${zoneName()})`), el("ol.timeline", {}, steps.map(item))];
}

/** A moment: a fact, or the bounds that observations give it. */
function when(moment) {
  if (!moment.at) return [moment.reached ? "time not known" : ""];
  if (moment.is_exact) return [time(moment.at)];
  if (!moment.since) return [el("span", { title: "It had happened by then" }, "seen at "), time(moment.at)];
  return ["between ", time(moment.since), " and ", time(moment.at)];
}

function facts(view) {
  const details = view.pieces[0];
  const size = details.width && details.height ? `${details.width} × ${details.height}` : null;
  const length = details.duration ? seconds(details.duration) : null;
  const parameters = Object.entries(view.parameters).map(([name, value]) => el("li", {}, `${name}: ${value}`));
  const rows = [
    [view.row ? "Row" : "Label", view.label],
    ["Model", view.model],
    ["Parameters", parameters.length ? el("ul.tasks", {}, parameters) : null],
    ["Credits", view.credits],
    ["Reused", view.reused_from && "from an equal order, which pays for it: nothing is paid here"],
    ["Took", view.seconds === null ? null : `${seconds(view.seconds)} from the submit to the ${view.files.length ? "stored file" : "end"}`],
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
  const [word, at] = task.ended_at ? ["ended", task.ended_at] : task.deferred_at ? ["since", task.deferred_at] : ["started", task.started_at];
  return el("li", {}, crumb(taskName(task), href), el("span.quiet", {}, ` ${task.state ?? "no status"}${tried}`, at && [", ", word, " ", time(at)]));
}

/** What has become of a stored file, as far as the API server sees. */
const NOW = { missing: "there is no file here", replaced: "another file is here, of another size", kept: "a file that was here before the download" };

function files({ files: found, can_download: canDownload }) {
  if (!found.length) return [];
  const item = (file) =>
    list([
      ["Stored at", copyable(file.uri, "the address")],
      ["Now", NOW[file.lost] ?? (file.is_shown ? null : "not known: the API server may not look there ([vidu] preview_roots)")],
      ["Size", file.size < 1000 ? bytes(file.size) : `${bytes(file.size)} (${file.size.toLocaleString()} bytes)`],
      ["Type", file.content_type],
      ["SHA-256", file.sha256 && copyable(file.sha256, "the SHA-256")],
    ]);
  const keep = canDownload && el("div.actions", {}, download(`${here}/file?download=1`, "Download the stored clip"));
  return [el("h2", {}, found.length > 1 ? "Files" : "File"), ...found.map(item), keep].filter(Boolean);
}

function list(rows) {
  const kept = rows.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return el("dl", {}, kept.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value instanceof Node ? value : String(value)))));
}

// Thirty clips are reviewed with thirty keys; arrows and Esc stay a player's own.
const KEYS = { n: "next", ArrowRight: "next", p: "prev", ArrowLeft: "prev", u: "up", Escape: "up" };

document.addEventListener("keydown", (event) => {
  const wanted = KEYS[event.key];
  if (!wanted || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
  if (event.target.closest("input, textarea, select, [contenteditable]")) return;
  if (event.key.length > 1 && (document.fullscreenElement || event.target.closest("video, audio"))) return;
  const link = document.querySelector(`.actions a[rel=${wanted}]`);
  if (link) {
    event.preventDefault();
    link.click();
  } else if (shown && wanted !== "up") {
    announce(wanted === "next" ? "This is the last clip" : "This is the first clip");
  }
});

if (isFramed) document.documentElement.dataset.framed = "true";
setInterval(() => shown?.outlook && tick(), 1000);
// The zone is chosen in Airflow's own pages, on the same origin.
window.addEventListener("storage", (event) => event.key === "timezone" && shown && show(shown));
keepAsking(async () => {
  const view = await getJson(`${here}/clip.json`);
  show(view);
  return view.refresh && Math.max(view.refresh, view.pause);
});
