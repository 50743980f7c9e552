// What both pages share. Everything shown goes through textContent: DAG authors control what a clip holds.

const root = new URL(document.querySelector('meta[name="vidu-root"]').content, location.href);
export const airflow = new URL("..", root);
export const here = location.pathname.replace(/\/+$/, "");
export const isFramed = window.self !== window.top;

/** The words of a state: those of the task logs (waiting, running, …), and Stored for a clip whose file is kept. */
export const STATES = {
  slot: "Waiting for a slot",
  prices: "Waiting for prices",
  waiting: "Waiting",
  running: "Running",
  succeeded: "Succeeded",
  stored: "Stored",
  failed: "Failed",
  dry: "Dry run",
  unknown: "Unknown",
};

/** The stages of the sheet's filter: the same words, and two for what has not ended, or what no task waits for. */
export const STAGES = { working: "In progress", submitted: "Submitted", ready: STATES.succeeded, stored: STATES.stored, failed: STATES.failed };

/** The most clips on a page of a sheet. */
export const SHEET_SIZE = 24;

/** What a badge says in brackets beside a good state, and what is wrong all the same. */
const BAD = ["task failed", "file not found", "file replaced", "earlier file kept"];

/** Make an element; children are elements or text, absent ones are omitted. */
export function el(tag, attributes = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  const made = document.createElement(name);
  if (classes.length) made.className = classes.join(" ");
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value === true ? "" : value);
  }
  for (const child of children.flat()) {
    if (child !== null && child !== undefined && child !== false) made.append(child);
  }
  return made;
}

/** Replace what is in an element, but only when it would change: focus and selection stay. */
export function fill(element, value, make) {
  const key = JSON.stringify(value);
  if (element.shownKey === key) return;
  element.shownKey = key;
  element.replaceChildren(...[make(value)].flat().filter(Boolean));
}

/** A state as the task logs write it: "Failed (cancelled)". */
export function stateText(state, qualifier = null) {
  return (STATES[state] ?? STATES.unknown) + (qualifier ? ` (${qualifier})` : "");
}

export function badge(state, qualifier = null) {
  const shown = BAD.includes(qualifier) ? "failed" : state in STATES ? state : "unknown";
  return el(`span.badge.is-${shown}`, {}, stateText(state, qualifier));
}

/** A task instance's name, with its label instead of the map index if given; iterations count from 0 as in Airflow. */
export function taskName(view, label = null) {
  const name = view.region_id ? `${view.task_id} · iteration ${view.iteration}` : view.task_id;
  if (label) return `${name} · ${label}`;
  return view.map_index >= 0 ? `${name} [${view.map_index}]` : name;
}

/** The path of a clip's page below the run: a task may have published several generations. */
export function clipPath(clip) {
  if (clip.row) return `/rows/${clip.row}`; // below the page of its batch
  return taskPath(clip) + (clip.number > 1 ? `/generations/${clip.number}` : "");
}

/** The path of a task instance's first clip below its run. In a loop, names and map index do not identify it. */
function taskPath(view) {
  if (!view.region_id) return airflowTaskPath(view);
  return `/tasks/${encodeURIComponent(view.task_id)}/regions/${view.region_id}/${view.region_index}`;
}

/** The path of a task instance's own page below its run, in Airflow's UI; `tab` is such as "/details". */
export function airflowTaskPath(view, tab = "", parameters = {}) {
  const mapped = view.map_index >= 0 ? `/mapped/${view.map_index}` : "";
  const region = view.region_id ? { region_id: view.region_id, region_index: view.region_index } : {};
  const query = String(new URLSearchParams({ ...region, ...parameters }));
  return `/tasks/${encodeURIComponent(view.task_id)}${mapped}${tab}${query && `?${query}`}`;
}

/** The path of the log of a task instance's latest try below its run, in Airflow's UI: of one that has begun. */
export function logPath(task) {
  return airflowTaskPath(task, "", { try_number: (task.begun_tries ?? task.try_number) || 1 });
}

export function runPath(view) {
  return `dags/${encodeURIComponent(view.dag_id)}/runs/${encodeURIComponent(view.run_id)}`;
}

export function announce(text) {
  const place = document.getElementById("announcer");
  if (place.textContent !== text) place.textContent = text;
}

export function bytes(size) {
  if (size < 1000) return `${size} bytes`;
  const units = ["kB", "MB", "GB", "TB"];
  let value = size;
  let unit = -1;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${value.toFixed(value < 10 ? 2 : 1)} ${units[unit]}`;
}

export function seconds(value) {
  if (value < 9.95) return `${Math.round(value * 10) / 10} s`;
  const whole = Math.round(value);
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  const [more, rest] = minutes < 60 ? [`${minutes} min`, whole % 60 && `${whole % 60} s`] : [`${Math.floor(minutes / 60)} h`, minutes % 60 && `${minutes % 60} min`];
  return rest ? `${more} ${rest}` : more;
}

/** The time zone that was chosen in Airflow's UI, which keeps it under this key on the same origin. */
function chosenZone() {
  try {
    const kept = localStorage.getItem("timezone");
    const zone = kept?.startsWith('"') ? JSON.parse(kept) : kept;
    return new Intl.DateTimeFormat("en", { timeZone: zone || undefined }).resolvedOptions().timeZone;
  } catch {
    // No storage in a sandboxed frame, or a zone that this browser does not know.
    return Intl.DateTimeFormat().resolvedOptions().timeZone;
  }
}

function inZone(moment, options, zone = chosenZone()) {
  // Sweden writes dates as Airflow does: 2026-01-02 14:06:00.
  return new Intl.DateTimeFormat("sv-SE", { timeZone: zone, hourCycle: "h23", ...options }).format(moment);
}

/** The short name of the zone in which times are shown, such as "CET", at a moment. */
export function zoneName(moment = new Date()) {
  const format = new Intl.DateTimeFormat("en", { timeZone: chosenZone(), timeZoneName: "short" });
  return format.formatToParts(moment).find((part) => part.type === "timeZoneName").value;
}

/** A moment in Airflow's format and zone; Airflow shows UTC in a tooltip, too. */
export function time(iso) {
  const moment = new Date(iso);
  const zone = zoneName(moment); // in summer, another one than the page names in winter
  const title = `${inZone(moment, { dateStyle: "short", timeStyle: "medium" }, "UTC")} UTC`;
  return el("time", { datetime: iso, title }, inZone(moment, { dateStyle: "short", timeStyle: "medium" }), zone !== zoneName() && ` ${zone}`);
}

const HALTS = {
  paused: ["The DAG is paused", "the DAG is unpaused in Airflow"],
  silent: ["No scheduler was heard of for two minutes", "a scheduler runs"],
  missing: ["The DAG is missing in Airflow", "the DAG is back", ": it was removed or renamed, or cannot be imported"],
};

/** Said on each page of a run none of whose tasks Airflow begins: what the other sentences promise waits as well. */
export function haltedAlert(why) {
  const [title, until, cause = ""] = HALTS[why];
  return el(
    "div.alert.is-notice",
    { role: "status" },
    el("h2", {}, title),
    el("p", {}, `What a worker has begun goes on. No other task begins, resumes or is retried until ${until}${cause}. What is at the service goes on meanwhile, and its links expire within a day.`),
  );
}

/** Why Airflow begins another try of a task: not every clear is known as one. In a halted run, none begins. */
export function retryTitle({ state, was_cleared: wasCleared }, halted) {
  if (wasCleared) return "The task was cleared";
  if (halted && state !== "running") return "The task's next try is held up";
  return state === null ? "Airflow begins the task once more by itself" : "Airflow retries the task by itself";
}

/** When Airflow begins the next try of a task, and what that does. */
export function retryText({ task, number, state, at, does }, halted) {
  const begins = `Try ${number} of ${task} begins `;
  if (state === "running") return [`Try ${number} of ${task} has begun; until it has published anything, this page shows what an earlier try has left. `, does];
  if (halted) return [begins, `once ${HALTS[halted][1]}`, at && [", at ", time(at), " at the earliest"], ". ", does].flat();
  if (state === "up_for_reschedule") return [`A worker has put off try ${number} of ${task}: its log says why. Airflow begins it again by itself; until then, this page shows what an earlier try has left. `, does];
  if (state !== "up_for_retry") return [begins, "once the tasks before it have ended and there is room for it; until then, this page shows what an earlier try has left. ", does];
  return [begins, ...(at ? ["at ", time(at), " at the earliest. "] : ["after its retry delay. "]), does];
}

/** A value with a button that copies it. */
export function copyable(value, label) {
  const code = el("code", {}, value);
  return el("span.copyable", {}, code, copyButton("Copy", label, value, () => code));
}

/** A button that copies a text; `shown` returns the element that holds it, for browsers without a clipboard. */
export function copyButton(text, label, value, shown) {
  const button = el("button.copy", { type: "button", "aria-label": `Copy ${label}` }, text);
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(value);
      button.textContent = "Copied";
      announce(`${label} copied`);
    } catch {
      // No clipboard on plain http: select it instead, so that one key is left to press.
      const range = document.createRange();
      range.selectNodeContents(shown());
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      button.textContent = "Selected";
    }
    setTimeout(() => (button.textContent = text), 2000);
  });
  return button;
}

/** The bar above: where one is, and the ways out. In Airflow's frame only these: the rest stands around it. */
export function topBar(crumbs, actions) {
  const alone = isFramed && crumb("Open alone", here);
  if (alone) alone.className = "plain alone";
  actions = [...actions, alone];
  const trail = [home(), ...crumbs];
  return [
    !isFramed && el("nav", { "aria-label": "Breadcrumb" }, el("ol.crumbs", {}, trail.filter(Boolean).map((each) => el("li", {}, each)))),
    actions.some(Boolean) && el("div.actions", {}, actions),
  ];
}

/** On a phone, a part of Airflow's frame lies beyond the screen: then the way out of it stands at the edge that is seen. */
function markBeyond() {
  const { frameElement: frame, parent } = window;
  const { left, right, top } = frame.getBoundingClientRect();
  const edge = Math.max(0, left);
  let from = edge; // Airflow's own bar covers what is scrolled beneath it
  while (from < parent.innerWidth && parent.document.elementFromPoint(from, Math.max(0, top) + 20) !== frame) from += 8;
  if (from >= parent.innerWidth) from = edge; // a dialog covers all of it, or it is below the screen
  const page = document.documentElement;
  page.classList.toggle("is-beyond", from > left + 1 || right > parent.innerWidth + 1);
  page.style.setProperty("--seen-from", `${from - left}px`);
}

if (isFramed && window.frameElement) {
  const gone = new AbortController(); // the page around the frame stays when this one is left
  window.addEventListener("pagehide", () => gone.abort());
  markBeyond();
  window.addEventListener("resize", markBeyond);
  window.parent.addEventListener("scroll", markBeyond, { capture: true, passive: true, signal: gone.signal });
}

/** A link to a page of Airflow's own; from within its frame it opens around the frame. */
export function crumb(text, href) {
  if (!href) return el("span", {}, text);
  const link = el("a", { href }, text);
  if (isFramed) link.addEventListener("click", openAround);
  return link;
}

/** The same as a button. */
export function plainCrumb(text, href, title) {
  const link = crumb(text, href);
  link.className = "plain";
  link.title = title;
  return link;
}

function openAround(event) {
  if (event.metaKey || event.ctrlKey || event.shiftKey || event.button) return;
  event.preventDefault();
  // Airflow's frame may neither navigate its parent nor open windows; a link of the page above may.
  const outer = window.top.document;
  const link = outer.createElement("a");
  link.href = event.currentTarget.href;
  if (event.currentTarget.hasAttribute("download")) link.download = "";
  outer.body.append(link);
  link.click();
  link.remove();
}

/**
 * Refresh while the page is visible: `load` returns the seconds until the next refresh, or null for none. A page that
 * becomes visible again is refreshed in any case: its task may have been cleared in another tab.
 */
export function keepAsking(load) {
  let timer = null;
  let failures = 0;
  let asking = 0;
  async function ask() {
    timer = null;
    asking += 1;
    let pause;
    try {
      pause = await load();
      failures = 0;
    } catch (error) {
      failures += 1;
      pause = Math.min(5 * 2 ** failures, error.status === 404 ? 15 : 60);
      trouble(error, pause);
    }
    asking -= 1;
    if (pause !== null && !asking && !document.hidden) timer = setTimeout(ask, pause * 1000);
  }
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      clearTimeout(timer);
      timer = null;
    } else if (!asking && timer === null) {
      ask();
    }
  });
  ask();
  return () => {
    clearTimeout(timer);
    return ask();
  };
}

export class Refused extends Error {
  constructor(status, detail, fault = null) {
    super(detail);
    this.status = status;
    this.fault = fault; // of the address: "ambiguous" (of several task instances), or "no-run" (that is there)
  }
}

export async function getJson(address) {
  const answer = await fetch(address, { headers: { Accept: "application/json" }, cache: "no-store" });
  const body = await answer.json().catch(() => null);
  const fault = answer.headers.get("Vidu-Address");
  if (!answer.ok) throw new Refused(answer.status, typeof body?.detail === "string" ? body.detail : "", fault);
  if (body === null) throw new Refused(0, ""); // cut off, or not the server's own
  document.querySelector(".trouble")?.remove();
  document.getElementById("main").classList.remove("is-gone");
  return body;
}

function trouble(error, pause) {
  document.querySelector(".trouble")?.remove();
  const status = error instanceof Refused ? error.status : null;
  const text =
    status === 401
      ? "Your session has ended."
      : status === 403
        ? "You may not see the clips of this DAG. That requires the permission to read its task instances and its XComs."
        : status === 404
          ? error.message
          : `Airflow does not answer; the page retries in ${pause} s.`;
  const again = status === 401 && el("button.plain", { type: "button", onclick: () => location.reload() }, "Log in");
  const main = document.getElementById("main");
  if (!(error instanceof Refused)) console.error(error);
  main.querySelector(".loading")?.remove();
  if (status === 404) main.classList.add("is-gone"); // such as what a task had made before it was cleared
  const isOfTask = here.includes("/tasks/"); // else it is the run that does not exist
  const ways = status === 404 || status === 403 ? waysOut(status, isOfTask, error.fault) : [];
  const top = document.getElementById("top");
  if (!top.hasChildNodes()) fill(top, "trouble", () => topBar([], []));
  main.prepend(el("div.alert.is-notice.trouble", { role: "alert" }, el("p", {}, text, " ", again), ...ways));
}

/** Airflow's own logo and name, which lead to its home page. */
function home() {
  const link = crumb("Airflow", airflow.pathname);
  const logo = el("img.logo", { src: new URL("static/pin_32.png", airflow).pathname, alt: "", width: "18", height: "18" });
  logo.addEventListener("error", () => logo.remove());
  link.prepend(logo);
  return link;
}

/** The names in the address of a page, as they are written there: DAG, run, task, map index, region and index in it. */
function namesInAddress() {
  const place = String.raw`(?:\/mapped\/(?<index>\d+)|\/regions\/(?<region>[^/]+)\/(?<position>\d+))`;
  const address = new RegExp(String.raw`\/dags\/(?<dag>[^/]+)(?:\/runs\/(?<run>[^/]+)(?:\/tasks\/(?<task>[^/]+)${place}?)?)?`);
  return address.exec(location.pathname)?.groups ?? {};
}

/** Links that lead on from a page that has nothing to show, by what its address names; without access, out of it. */
export function waysOut(status, hasRun = true, fault = null) {
  const home = crumb("Airflow's home page", airflow.pathname);
  if (status === 403) return [el("ul.ways", {}, el("li", {}, home))]; // the others would be refused as well
  const { dag, run, task, index, region, position } = namesInAddress();
  const base = new URL("dags/", airflow).pathname;
  const own = dag && run && fault !== "no-run" && `${base}${dag}/runs/${run}`;
  const place = index ? `/mapped/${index}` : region ? `?region_id=${region}&region_index=${position}` : "";
  const links = [
    own && task && fault !== "ambiguous" && crumb("The task and its log in Airflow", `${own}/tasks/${task}${place}`),
    own && el("a", { href: `${root.pathname}dags/${dag}/runs/${run}` }, "All clips of this run"),
    own && hasRun && crumb("The run in Airflow", own),
    dag && crumb("The DAG in Airflow", `${base}${dag}`),
    home,
  ].filter((link) => link && link.pathname !== location.pathname);
  return [el("ul.ways", {}, links.map((link) => el("li", {}, link)))];
}

/** A button that keeps a stored file. Airflow's frame may forbid downloads: there a link of the page around it does it. */
export function download(href, label, text = "Download") {
  const link = el("a.plain.download", { href, download: true, "aria-label": label, title: label }, text);
  if (isFramed) link.addEventListener("click", openAround);
  return link;
}
