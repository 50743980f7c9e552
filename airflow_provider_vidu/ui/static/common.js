// What both pages share. Everything shown goes through textContent: clips come from whoever writes a DAG.

const root = new URL(document.querySelector('meta[name="vidu-root"]').content, location.href);
export const airflow = new URL("..", root);
export const here = location.pathname.replace(/\/+$/, "");
export const isFramed = window.self !== window.top;

export const STATES = {
  waiting: "Waiting",
  running: "Running",
  succeeded: "Done",
  stored: "Stored",
  failed: "Failed",
  unknown: "Unknown",
};

/** Make an element; children are elements or text, absent ones are left out. */
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

export function badge(state) {
  return el(`span.badge.is-${state in STATES ? state : "unknown"}`, {}, STATES[state] ?? STATES.unknown);
}

/** A task instance's name; in a loop, iterations count from 0 as in Airflow's own pages. */
export function taskName(view) {
  const name = view.region_id ? `${view.task_id} · iteration ${view.iteration}` : view.task_id;
  return view.map_index >= 0 ? `${name} [${view.map_index}]` : name;
}

/** The path of a task instance's clip below its run. In a loop, names and map index do not identify it. */
export function taskPath(view) {
  if (!view.region_id) return airflowTaskPath(view);
  return `/tasks/${encodeURIComponent(view.task_id)}/regions/${view.region_id}/${view.region_index}`;
}

/** The path of a task instance's own page below its run, in Airflow's UI. */
export function airflowTaskPath(view) {
  const mapped = view.map_index >= 0 ? `/mapped/${view.map_index}` : "";
  const region = view.region_id ? `?region_id=${view.region_id}&region_index=${view.region_index}` : "";
  return `/tasks/${encodeURIComponent(view.task_id)}${mapped}${region}`;
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
  if (value < 60) return `${value < 10 ? Math.round(value * 10) / 10 : Math.round(value)} s`;
  const minutes = Math.floor(value / 60);
  if (minutes < 60) return `${minutes} min ${Math.round(value % 60)} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
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

function inZone(moment, options) {
  // Sweden writes dates as Airflow does: 2026-01-02 14:06:00.
  return new Intl.DateTimeFormat("sv-SE", { timeZone: chosenZone(), hourCycle: "h23", ...options }).format(moment);
}

/** The short name of the zone in which times are shown, such as "CET". */
export function zoneName() {
  const format = new Intl.DateTimeFormat("en", { timeZone: chosenZone(), timeZoneName: "short" });
  return format.formatToParts(new Date()).find((part) => part.type === "timeZoneName").value;
}

/** A moment in Airflow's format and zone; one that was only seen is marked as such, because it happened before. */
export function time(iso, isExact = true) {
  const moment = new Date(iso);
  const whole = inZone(moment, { dateStyle: "short", timeStyle: "medium" });
  const isToday = inZone(moment, { dateStyle: "short" }) === inZone(new Date(), { dateStyle: "short" });
  const shown = isToday ? inZone(moment, { timeStyle: "medium" }) : whole;
  const title = `${isExact ? "" : "It had happened by "}${whole} ${zoneName()}`;
  return el("time", { datetime: iso, title }, isExact ? shown : `by ${shown}`);
}

/** A value with a button that copies it. */
export function copyable(value, label) {
  const button = el("button.copy", { type: "button", "aria-label": `Copy ${label}` }, "Copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(value);
      button.textContent = "Copied";
      announce(`${label} copied`);
    } catch {
      // No clipboard on plain http: select it instead, so that one key is left to press.
      const range = document.createRange();
      range.selectNodeContents(button.previousElementSibling);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      button.textContent = "Selected";
    }
    setTimeout(() => (button.textContent = "Copy"), 2000);
  });
  return el("span.copyable", {}, el("code", {}, value), button);
}

/** The bar above: where one is, and the way back. In Airflow's frame only the way back: the rest stands around it. */
export function topBar(crumbs, actions) {
  const trail = [crumb("Airflow", airflow.pathname), ...crumbs];
  return [
    !isFramed && el("nav", { "aria-label": "Breadcrumb" }, el("ol.crumbs", {}, trail.map((each) => el("li", {}, each)))),
    actions.some(Boolean) && el("div.actions", {}, actions),
  ];
}

/** A link to a page of Airflow's own; from within its frame it opens around the frame. */
export function crumb(text, href) {
  if (!href) return el("span", {}, text);
  const link = el("a", { href }, text);
  if (isFramed) link.addEventListener("click", openAround);
  return link;
}

function openAround(event) {
  if (event.metaKey || event.ctrlKey || event.shiftKey || event.button) return;
  event.preventDefault();
  // The frame itself may open no page above it; a link of the page above may.
  const outer = window.top.document;
  const link = outer.createElement("a");
  link.href = event.currentTarget.href;
  outer.body.append(link);
  link.click();
  link.remove();
}

/** Ask again and again while the page is seen: `load` returns the seconds until next time, or null for never. */
export function keepAsking(load) {
  let timer = null;
  let failures = 0;
  let wanted = true;
  async function ask() {
    timer = null;
    let pause;
    try {
      pause = await load();
      failures = 0;
    } catch (error) {
      failures += 1;
      pause = Math.min(5 * 2 ** failures, 60);
      trouble(error, pause);
    }
    wanted = pause !== null;
    if (wanted && !document.hidden) timer = setTimeout(ask, pause * 1000);
  }
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      clearTimeout(timer);
      timer = null;
    } else if (wanted && timer === null) {
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
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

export async function getJson(address) {
  const answer = await fetch(address, { headers: { Accept: "application/json" }, cache: "no-store" });
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Refused(answer.status, typeof body.detail === "string" ? body.detail : "");
  document.querySelector(".trouble")?.remove();
  return body;
}

function trouble(error, pause) {
  document.querySelector(".trouble")?.remove();
  const status = error instanceof Refused ? error.status : null;
  const text =
    status === 401
      ? "Your session has ended."
      : status === 403
        ? "You may not see the clips of this DAG."
        : status === 404
          ? error.message
          : `Airflow does not answer; trying again in ${pause} s.`;
  const again = status === 401 && el("button.plain", { type: "button", onclick: () => location.reload() }, "Log in");
  const main = document.getElementById("main");
  if (!(error instanceof Refused)) console.error(error);
  main.querySelector(".loading")?.remove();
  main.prepend(el("div.alert.is-notice.trouble", { role: "alert" }, el("p", {}, text, " ", again)));
}
