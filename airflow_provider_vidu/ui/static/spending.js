// What the generations of all DAGs have cost: by day, DAG, model and outcome.
import { airflow, announce, crumb, download, el, fill, getJson, here, isFramed, keepAsking, topBar } from "./common.js";

const PERIODS = [7, 30, 90];
const OUTCOMES = {
  succeeded: ["Succeeded", "The task has succeeded."],
  working: ["In progress", "The task has not ended."],
  submitted: ["Submitted", "The task has submitted without waiting for the result."],
  failed: ["Failed", "The task has failed or was skipped. Refunds are not deducted, except after a cancel because of max_credits, and of rows of batches that were not cancelled with the batch."],
};
const main = document.getElementById("main");
const parts = {};
const wanted = Number.parseInt(new URLSearchParams(location.search).get("days") ?? "", 10);
let days = PERIODS.includes(wanted) ? wanted : 30;

function build() {
  const part = (name, tag, attributes) => (parts[name] = el(tag, attributes));
  main.replaceChildren(
    el("div.sheet-head", {}, el("h1", {}, "Vidu credits"), part("sum", "p.quiet.sum", {})),
    el("div.tools", {}, part("periods", "div.filters", { role: "group", "aria-label": "Period" }), part("export", "div.views", {})),
    part("notes", "div.spent-notes", {}),
    part("chart", "section.panel.spent-chart", { "aria-label": "Credits by day" }),
    part("groups", "div.spent-groups", {}),
    part("rows", "section.panel.spent-rows", { "aria-label": "All sums" }),
    part("empty", "div", {}),
  );
}

function show(view) {
  if (!parts.sum) build();
  fill(document.getElementById("top"), "spending", () => topBar([crumb("Vidu credits")], []));
  fill(parts.sum, view.total, () => sum(view.total));
  fill(parts.periods, view.days, periods);
  const isEmpty = !view.row_count;
  fill(parts.export, [view.days, isEmpty], () => (isEmpty ? [] : download(`${here}.csv?days=${view.days}`, "Download these sums as CSV", "CSV")));
  fill(parts.notes, [view.is_cut, view.unread, view.begun_again], () => notes(view));
  fill(parts.chart, [view.calendar, isEmpty], () => (isEmpty ? [] : chart(view)));
  fill(parts.groups, [view.dags, view.models, view.outcomes], () => (isEmpty ? [] : groups(view)));
  fill(parts.rows, [view.rows, view.row_count], () => (isEmpty ? [] : rows(view)));
  fill(parts.empty, [isEmpty, view.days], () => (isEmpty ? empty(view) : []));
}

function amount(credits) {
  return credits.toLocaleString("en", { maximumFractionDigits: 2 });
}

function cost({ credits, with_price: priced }) {
  return priced ? amount(credits) : "not known";
}

function sum({ credits, generations, with_price: priced }) {
  if (!generations) return [];
  const known = priced < generations ? `, price known of ${amount(priced)}` : "";
  return `${amount(credits)} credits · ${amount(generations)} ${generations === 1 ? "generation" : "generations"}${known}`;
}

function periods() {
  return PERIODS.map((each) => el("button.plain", { type: "button", "aria-pressed": String(days === each), onclick: () => go(each) }, `${each} days`));
}

function go(period) {
  days = period;
  history.replaceState(null, "", `${here}?days=${days}`);
  again().then(() => announce(parts.sum.textContent || "Nothing was spent"));
}

function notes(view) {
  return [
    view.is_cut && el("p.quiet", {}, "There is more than is added up here: the newest generations are."),
    view.begun_again > 0 && el("p.quiet", {}, missing(view.begun_again)),
    view.unread > 0 && el("p.quiet", {}, `${amount(view.unread)} notes of tasks (in all DAGs) are kept by the XCom back end and are not added up.`),
  ].filter(Boolean);
}

/** Airflow removes what a task has published when another try begins. */
function missing(tasks) {
  const [who, whose] = tasks === 1 ? ["1 task has", "its"] : [`${amount(tasks)} tasks have`, "their"];
  return `${who} begun another try and published nothing in it: what ${whose} earlier tries have ordered is missing here.`;
}

function chart(view) {
  const totals = view.calendar.map(({ credits }) => Object.values(credits).reduce((all, one) => all + one, 0));
  const most = Math.max(...totals, 0);
  const columns = view.calendar.map(({ day, credits }, at) => {
    const segments = Object.keys(OUTCOMES).filter((outcome) => credits[outcome] > 0);
    const told = segments.map((outcome) => `${OUTCOMES[outcome][0]}: ${amount(credits[outcome])}`);
    const column = el("li", { title: [`${day}: ${amount(totals[at])} credits`, ...told].join("\n") }, el("span.hidden", {}, `${day}: ${amount(totals[at])} credits`));
    const bars = segments.map((outcome) => {
      const bar = el(`i.is-${outcome}`, { "aria-hidden": "true" });
      bar.style.height = `${(100 * credits[outcome]) / most}%`;
      return bar;
    });
    column.append(...bars.reverse());
    return column;
  });
  const legend = Object.entries(OUTCOMES)
    .filter(([outcome]) => view.calendar.some(({ credits }) => credits[outcome] > 0))
    .map(([outcome, [name, title]]) => el("li", { title }, el(`i.is-${outcome}`, { "aria-hidden": "true" }), name));
  return [
    el("h2", {}, "Credits by day (UTC)"),
    el("p.spent-most.quiet", { "aria-hidden": "true" }, amount(most)),
    el("ol.spent-days", {}, columns),
    el("p.spent-ends.quiet", { "aria-hidden": "true" }, el("span", {}, view.calendar[0].day), el("span", {}, view.calendar.at(-1).day)),
    el("ul.spent-legend", {}, legend),
  ];
}

function groups(view) {
  return [
    group("By DAG", "DAG", view.dags, ({ name }) => (/^\d+ others$/.test(name) ? name : crumb(name, `${new URL("dags/", airflow).pathname}${encodeURIComponent(name)}`))),
    group("By model", "Model", view.models, ({ name }) => name),
    group("By outcome", "Outcome", view.outcomes, ({ name }) => el("span", { title: OUTCOMES[name][1] }, OUTCOMES[name][0])),
  ];
}

function group(title, column, sums, name) {
  const most = Math.max(...sums.map(({ credits }) => credits), 0);
  const line = (each) => {
    const bar = el("i.spent-bar", { "aria-hidden": "true" });
    bar.style.width = most ? `${(100 * each.credits) / most}%` : "0";
    return el("tr", {}, el("th", { scope: "row" }, name(each), bar), el("td", {}, cost(each)), el("td", {}, amount(each.generations)));
  };
  return el("section.panel", {}, el("h2", {}, title), table([column, "Credits", "Generations"], sums.map(line)));
}

function table(columns, lines) {
  const head = el("thead", {}, el("tr", {}, columns.map((column) => el("th", { scope: "col" }, column))));
  return el("div.spent-scroll", { tabindex: "0", role: "region", "aria-label": columns[0] }, el("table", {}, head, el("tbody", {}, lines)));
}

function rows(view) {
  const line = (row) =>
    el(
      "tr",
      {},
      el("th", { scope: "row" }, row.day),
      el("td.is-text", {}, row.dag_id),
      el("td.is-text", {}, row.model),
      el("td.is-text", {}, OUTCOMES[row.outcome][0]),
      el("td", {}, cost(row)),
      el("td", {}, amount(row.generations)),
    );
  const shown = view.rows.length < view.row_count ? `the newest ${amount(view.rows.length)} of ${amount(view.row_count)}; the CSV has all` : null;
  return [
    el("h2", {}, "By day, DAG, model and outcome", shown && ` (${shown})`),
    table(["Day (UTC)", "DAG", "Model", "Outcome", "Credits", "Generations"], view.rows.map(line)),
    el("p.quiet", {}, "Prices are those that the service named at the submits. Refunds of failed or cancelled generations are not deducted, except for a cancel because of max_credits. A task that has ordered several times, in retries or after clears, counts as one generation with the credits of all; but what it had ordered before a clear of its success counts in Airflow 3.3 alone. A batch counts as a whole, on the day when its task last worked on it; its ended rows count what the service named at their end, refunds deducted, except rows that were cancelled with the batch."),
  ];
}

function empty(view) {
  return el(
    "div.nothing",
    {},
    el("h2", {}, `No generations in the last ${view.days} days`),
    el("p", {}, "The page adds up what ViduGenerateOperator, ViduBatchOperator and ViduHook have submitted, in the DAGs whose task instances and XComs you may see."),
  );
}

if (isFramed) document.documentElement.dataset.framed = "true";
const again = keepAsking(async () => {
  show(await getJson(`${here}.json?days=${days}`));
  return null;
});
