// The contact sheet: every clip of a DAG run.
import { airflow, airflowTaskPath, announce, badge, bytes, clipPath, crumb, download, el, fill, getJson, haltedAlert, here, isFramed, keepAsking, logPath, plainCrumb, runPath, seconds, SHEET_SIZE as SIZE, STAGES, taskName, time, topBar, zoneName } from "./common.js";
import { batchPanel, batchPath, beforeRefunds } from "./batch.js";

const ORDERS = { scene: "In order of the scenes", newest: "Newest first", cost: "Most credits first", state: "Failed first", label: "By label" };
const DENSE = "vidu-sheet-dense";
const HOVER_MS = 250;
const main = document.getElementById("main");
const parts = {};
const asked = new URLSearchParams(location.search);
let stage = asked.get("stage") in STAGES ? asked.get("stage") : null;
let order = asked.get("order") in ORDERS ? asked.get("order") : "scene";
let base = here; // where the clips on the sheet are: the run, or its only batch
let shown = null;
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
    el("div.sheet-head", {}, part("title", "h1", {}), part("sum", "p.quiet.sum", {})),
    part("batches", "div.batches", {}),
    part("alerts", "div.sheet-alerts", {}),
    el("div.tools", {}, part("filters", "div.filters", { role: "group", "aria-label": "Show" }), part("views", "div.views", {})),
    part("grid", "ul.grid", {}),
    part("empty", "div", {}),
    part("pages", "nav.pages", { "aria-label": "Pages" }),
  );
  parts.grid.classList.toggle("is-dense", isDense());
}

function show(view) {
  shown = view;
  if (!parts.grid) build();
  fill(document.getElementById("top"), [view.dag_id, view.run_id, view.batch && logPath(view.batch)], () => bar(view));
  fill(parts.title, Boolean(view.batch), (isBatch) => (isBatch ? "Clips of this batch" : "Clips of this run"));
  fill(parts.batches, [view.batch, view.batches, view.halted, zoneName()], () => (view.batch ? [view.batch] : view.batches).map((batch) => batchPanel(view, batch, { isOwn: Boolean(view.batch) })));
  const all = Object.values(view.counts).reduce((sum, count) => sum + count, 0);
  fill(parts.alerts, [view.clips.filter((clip) => clip.is_unattended).length, view.no_generation, all > 0, view.halted], ([count]) => [view.halted ? haltedAlert(view.halted) : [], unattended(count), withoutClip(view, all)].flat());
  fill(parts.filters, [view.counts, stage], () => (all ? filters(view.counts, all) : []));
  fill(parts.views, [all > 0, order, isDense()], () => (all ? views() : []));
  fill(parts.sum, [view.total, view.credits, view.batch && beforeRefunds(view.batch), stage, zoneName()], () => sum(view));
  showGrid(view.clips);
  fill(parts.empty, [all, view.total, view.is_over, view.is_cut, Boolean(view.batch)], () => (view.batch || view.batches.length ? emptyBatch(view, all) : empty(view, all)));
  fill(parts.pages, [view.total, view.offset], () => pages(view));
}

/** Where one is, and the ways out; a batch's sheet leads to that of its run, and to its task. */
function bar(view) {
  const run = new URL(runPath(view), airflow).pathname;
  const crumbs = [crumb(view.dag_id, `${new URL("dags/", airflow).pathname}${encodeURIComponent(view.dag_id)}`), crumb(view.run_id, run)];
  if (!view.batch) return topBar(crumbs, []);
  const own = here.endsWith("/batch"); // else it stands for its run, which has no other clips
  return topBar(
    [...crumbs, crumb(taskName(view.batch), run + airflowTaskPath(view.batch))],
    [
      own && el("a.plain", { href: here.slice(0, here.indexOf("/tasks/")), rel: "up", title: "All clips of this run" }, "All clips"),
      plainCrumb("Task", run + airflowTaskPath(view.batch, "/details"), "The task in Airflow"),
      plainCrumb("Log", run + logPath(view.batch), "The task's log in Airflow"),
    ],
  );
}

/** How many clips there are, and what they cost, as far as the service has named a price. */
function sum(view) {
  const { sum: cost, clips } = view.credits;
  if (!view.total) return [];
  const known = clips && clips < view.total ? `, known of ${clips}` : "";
  // A card shows what a refund has left of it. A stored row has none.
  const when = !view.batch ? " at the submits" : stage === "stored" ? "" : beforeRefunds(view.batch);
  const title = "What the service named as the price at the submits. If it refunds failed or cancelled clips, that is not deducted. Rows of a batch that have ended count what the service named at their end, except rows that were cancelled with the batch.";
  return [
    `${view.total} ${view.total === 1 ? "clip" : "clips"}`,
    clips ? el("span", { title }, ` · ${cost.toLocaleString("en")} credits${when}${known}`) : null,
    ` · times in ${zoneName()}`,
  ];
}

/** Said once for all clips on the sheet; their cards repeat it in a line. */
function unattended(count) {
  if (!count) return [];
  return el(
    "div.alert.is-notice",
    { role: "status" },
    el("h2", {}, `No triggerer runs the wait of ${count} of these clips`),
    el("p", {}, `${count === 1 ? "Its task does" : "Their tasks do"} not go on until one does: check that a triggerer runs, and its capacity. What is at the service does not depend on it, and is not paid for again.`),
  );
}

/** Tasks that have failed before there was a clip: on a limit of credits, by a refused create, by a lost answer. */
function withoutClip(view, all) {
  const { count, tasks } = view.no_generation;
  if (!count) return [];
  const what = count === 1 ? `One ${all ? "more " : ""}task has` : `${count} ${all ? "more " : ""}tasks have`;
  const run = new URL(runPath(view), airflow).pathname;
  const logs = tasks.map((task) => el("li", {}, crumb(`Log of ${taskName(task, task.label)}`, run + logPath(task))));
  const more = count > tasks.length ? el("li.quiet", {}, `and ${count - tasks.length} more`) : null;
  return el(
    "div.alert.is-error",
    { role: "status" },
    el("h2", {}, `${what} failed without a clip`),
    el("p", {}, `${count === 1 ? "It has" : "They have"} no generation in the last try, so there is no card. The log says why, and whether anything may have been paid for. A task that no worker has begun has no log, and has submitted nothing.`),
    el("ul.ways", {}, logs, more),
  );
}

function views() {
  const options = Object.entries(ORDERS).map(([key, text]) => el("option", { value: key, selected: key === order }, text));
  const select = el("select.plain", { "aria-label": "Sort", onchange: () => go(stage, 0, select.value) }, options);
  const dense = el("button.plain", { type: "button", "aria-pressed": String(isDense()), onclick: () => setDense(!isDense()) }, "Dense");
  return [select, dense];
}

function isDense() {
  try {
    return localStorage.getItem(DENSE) === "yes";
  } catch {
    return parts.grid?.classList.contains("is-dense") ?? false;
  }
}

function setDense(wanted) {
  try {
    localStorage.setItem(DENSE, wanted ? "yes" : "no");
  } catch {
    // No storage in a sandboxed frame: the choice lasts as long as the page.
  }
  parts.grid.classList.toggle("is-dense", wanted);
  parts.views.querySelector("button").setAttribute("aria-pressed", String(wanted));
}

function showGrid(clips) {
  const kept = new Map([...parts.grid.children].map((card) => [card.dataset.id, card]));
  parts.grid.replaceChildren(
    ...clips.map((clip) => {
      const id = clipPath(clip); // not its generation: rows of a batch may share one
      const card = kept.get(id) ?? el("li.card", { "data-id": id });
      fill(card, [clip, zoneName()], () => cardOf(clip));
      return card;
    }),
  );
}

/** The name of a clip: its task with Airflow's rendered map index if there is one, else with the map index. */
function clipName(clip) {
  if (clip.row) return clip.key;
  const name = taskName(clip, clip.label);
  return clip.number > 1 ? `${name}, generation ${clip.number}` : name;
}

function cardOf(clip) {
  const prompt = clip.prompt ?? clip.generation_id ?? clipName(clip);
  const link = el(
    "a",
    { href: base + clipPath(clip) },
    el("div.thumb", {}, thumb(clip), badge(clip.state, clip.qualifier), clip.progress !== null && progress(clip.progress)),
    el(
      "div.card-text",
      {},
      el("p.card-name", { title: [taskName(clip), clip.label, !clip.began_at && "not submitted yet"].filter(Boolean).join(", ") }, clipName(clip)),
      el("p.card-prompt", { title: prompt }, prompt),
      el("p.quiet.card-facts", {}, facts(clip)),
      clip.error && el("p.card-error", {}, [clip.error.code, clip.error.message].filter(Boolean).join(" · ")),
      clip.is_unattended && el("p.card-error.is-notice", {}, "No triggerer runs this wait."),
      !clip.error && clip.notice && noticeOn(clip),
    ),
  );
  if (clip.can_play && clip.medium === "video") playOnHover(link, clip);
  const actions = [
    clip.medium === "audio" && clip.can_play && sound(clip),
    clip.can_download && download(`${base}${clipPath(clip)}/file?download=1`, `Download the clip of ${clipName(clip)}`),
  ];
  return [link, el("div.card-actions", {}, actions)];
}

/** Why a state is not known, or is that of an earlier poll: a generation that has not ended may have gone on since. */
function noticeOn({ state, done, notice }) {
  if (state !== "unknown" && (done || !notice.is_old)) return null;
  return el("p.card-error.is-notice", {}, `${notice.is_old ? "The state is the last known one. " : ""}${notice.message}`);
}

function progress(percent) {
  const filled = el("div.progress-filled");
  filled.style.width = `${percent}%`;
  return [el("span.percent", {}, `${percent} %`), el("div.progress", { "aria-hidden": "true" }, filled)];
}

/** What distinguishes a clip from the next one, the most telling first. */
function facts(clip) {
  const { seed, duration, ...more } = clip.parameters;
  const shown = [
    clip.model,
    seed !== undefined && `seed ${seed}`,
    duration !== undefined && `${duration} s long`,
    ...Object.entries(more).map(([name, value]) => (typeof value === "string" ? value : `${name} ${value}`)),
  ];
  const measured = [
    clip.credits !== null && `${clip.credits.toLocaleString("en")} credits`,
    clip.reused_from && "reused",
    clip.seconds !== null && `took ${seconds(clip.seconds)}`,
    clip.size !== null && bytes(clip.size),
  ];
  const all = Object.entries(clip.parameters).map(([name, value]) => `${name}: ${value}`);
  return [
    el("span", { title: all.join("\n") }, shown.filter(Boolean).join(" · ")),
    el("span.measured", {}, measured.filter(Boolean).flatMap((part, at) => [at > 0 && " · ", el("span", {}, part)])),
    clip.began_at && el("span.began", {}, time(clip.began_at)),
  ];
}

/** A clip plays without sound while the pointer rests on its card; nothing is fetched for a pointer that passes. */
function playOnHover(link, clip) {
  if (!matchMedia("(hover: hover)").matches || matchMedia("(prefers-reduced-motion: reduce)").matches) return;
  let timer = null;
  const stop = () => {
    clearTimeout(timer);
    link.querySelector(".preview")?.remove();
  };
  link.addEventListener("pointerenter", () => {
    stop();
    timer = setTimeout(() => {
      const video = el("video.preview", { playsinline: true, loop: true, tabindex: "-1", "aria-hidden": "true" });
      video.muted = true;
      video.addEventListener("error", stop);
      link.querySelector(".thumb").prepend(video);
      video.src = `${base}${clipPath(clip)}/file`;
      video.play().catch(stop);
    }, HOVER_MS);
  });
  link.addEventListener("pointerleave", stop);
}

/** Sound is played on the card itself; nothing is fetched before. */
function sound(clip) {
  const audio = el("audio", { controls: true, preload: "none", src: `${base}${clipPath(clip)}/file`, "aria-label": "The clip" });
  audio.addEventListener("error", () => audio.remove());
  return audio;
}

/** What stands for a clip; a clip without a picture has a slim line instead of an empty frame. */
function thumb(clip) {
  const path = base + clipPath(clip);
  const empty = (shown) => shown.replaceWith(el("span.no-picture"));
  if (clip.medium === "audio" && clip.can_play) return el("div.note", { "aria-hidden": "true" }, "♪");
  const still = () => (clip.medium === "image" ? picture(`${path}/file`, empty) : firstPicture(`${path}/file`, empty));
  if (clip.has_cover) return picture(`${path}/cover`, (shown) => (clip.can_play ? shown.replaceWith(still()) : empty(shown)));
  return clip.can_play ? still() : el("span.no-picture");
}

/** The first picture of a clip without a cover, fetched when the card comes into view. */
function firstPicture(src, failed) {
  const video = el("video", { muted: true, playsinline: true, preload: "metadata", tabindex: "-1", "aria-hidden": "true" });
  video.dataset.src = `${src}#t=0.1`;
  // The name of a file tells little: what does not play may be a picture.
  video.addEventListener("error", () => video.replaceWith(picture(src, failed)));
  seen.observe(video);
  return video;
}

function picture(src, failed) {
  const image = el("img", { src, alt: "", loading: "lazy" });
  image.addEventListener("error", () => failed(image));
  return image;
}

function filters(counts, all) {
  const titles = { submitted: "No task waits for their end any more. Their badges say what has become of them." };
  const button = (key, text, count) =>
    el("button.plain", { type: "button", title: titles[key], "aria-pressed": String(stage === key), disabled: !count && stage !== key, onclick: () => go(key, 0) }, `${text} ${count}`);
  // Few runs have clips that no task waits for.
  const shown = Object.entries(STAGES).filter(([key]) => key !== "submitted" || counts[key] || stage === key);
  return [button(null, "All", all), ...shown.map(([key, text]) => button(key, text, counts[key] ?? 0))];
}

function empty(view, all) {
  if (view.is_cut) return el("p.quiet", {}, "This run has more tasks with clips than are looked at; the first ones are shown.");
  if (all && !view.total) return el("p.quiet", {}, "No clip is in this state now.");
  if (all) return [];
  return el(
    "div.nothing",
    {},
    el("h2", {}, view.is_over ? "This run has no clips to show" : "No clips yet"),
    el("p", {}, "Clips of ViduGenerateOperator, ViduBatchOperator, ViduGenerationSensor and ViduDownloadOperator appear here as soon as their generation has an id."),
    el("p", {}, "A @task that submits with ViduHook is not seen from here: it publishes its generation itself, with ", el("code", {}, "hook.publish(generation)"), "."),
    view.is_over && el("p", {}, "A dry run of ViduBatchOperator submits nothing, so it has no clips: the task's log says what it would submit."),
    view.is_over && el("p", {}, "Clips whose XComs were removed since, as ", el("code", {}, "airflow db clean"), " does, are not shown: the tasks' logs name them, and the files that were stored are kept."),
    view.is_over && el("p", {}, "If the last try of a task failed before it published its generation again, what earlier tries have made is not shown either: it is in the logs of those tries."),
  );
}

/** A batch's own panel says how far it is. */
function emptyBatch(view, all) {
  return view.batch && all && !view.total ? el("p.quiet", {}, "No clip is in this state now.") : [];
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

function go(wantedStage, wantedOffset, wantedOrder = order) {
  stage = wantedStage;
  offset = wantedOffset;
  order = wantedOrder;
  const query = new URLSearchParams();
  if (stage) query.set("stage", stage);
  if (order !== "scene") query.set("order", order);
  if (offset) query.set("offset", String(offset));
  history.replaceState(null, "", `${here}${query.size ? `?${query}` : ""}`);
  again().then(() => announce(parts.pages.querySelector("span")?.textContent || "Shown"));
}

if (isFramed) document.documentElement.dataset.framed = "true";
// The zone is chosen in Airflow's own pages, on the same origin.
window.addEventListener("storage", (event) => event.key === "timezone" && shown && show(shown));

const ask = (address) =>
  getJson(`${address}/clips.json?${new URLSearchParams({ offset: String(offset), limit: String(SIZE), order, ...(stage ? { stage } : {}) })}`);

const again = keepAsking(async () => {
  const run = await ask(here);
  // A run that has nothing but a batch: its clips are those of the run.
  const isEmpty = !Object.values(run.counts).some(Boolean) && !run.no_generation.count;
  base = isEmpty && run.batches.length === 1 ? here + batchPath(run.batches[0]) : here;
  let view = base === here ? run : await ask(base);
  if (offset && !view.clips.length) {
    // Clips leave a state while they are looked at, and the last page with them.
    offset = Math.max(0, Math.ceil(view.total / SIZE) - 1) * SIZE;
    view = await ask(base);
  }
  show(view);
  const isBusy = !run.is_over || !view.is_over || view.clips.some((clip) => clip.progress !== null);
  return isBusy ? Math.max(view.counts.working ? 5 : 15, run.pause, view.pause) : null;
});
