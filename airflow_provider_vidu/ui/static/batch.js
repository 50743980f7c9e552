// How far a batch is, and the ways to its rows and its manifest.
import { airflow, airflowTaskPath, copyable, crumb, el, here, logPath, retryText, retryTitle, runPath, taskName, time } from "./common.js";

const WAITS = {
  slot: "The next rows wait for a free slot: the account is full, the service takes no more for now, or the connection has a limit (max_in_flight). The task orders them by itself.",
  prices: "The next rows wait for prices: open generations whose price is not known yet may cost what max_credits or the budget leaves. Their end names the prices, and the task goes on by itself.",
};

/** The path of a batch's page below its run. */
export function batchPath(batch) {
  const mapped = batch.map_index >= 0 ? `/mapped/${batch.map_index}` : "";
  const place = batch.region_id ? `/regions/${batch.region_id}/${batch.region_index}` : mapped;
  return `/tasks/${encodeURIComponent(batch.task_id)}${place}/batch`;
}

/** The panel of a batch: on its own sheet, or on that of its run, from where it leads to the rows. */
export function batchPanel(view, batch, { isOwn }) {
  const run = new URL(runPath(view), airflow).pathname;
  const task = run + airflowTaskPath(batch);
  const name = isOwn ? crumb(taskName(batch), task) : el("a", { href: here + batchPath(batch) }, taskName(batch));
  return el(
    "section.panel.batch",
    { "aria-label": `Batch ${batch.name}` },
    el("div.batch-head", {}, el("h2", {}, name), el("p.quiet", {}, ...progressText(batch))),
    batch.stored !== null && batch.rows > 0 && !batch.is_shared && bar(batch),
    batch.is_unattended && el("p.batch-problem", { role: "alert" }, "No triggerer runs this wait: check that a triggerer runs, and its capacity. What is at the service does not depend on it, and is not paid for again."),
    batch.next_try && el("p.batch-problem", { role: "status" }, `${retryTitle(batch.next_try, view.halted)}. `, ...retryText(batch.is_gone ? { ...batch.next_try, does: "" } : batch.next_try, view.halted)),
    batch.waits_for && !batch.is_unattended && el("p.batch-problem", { role: "status" }, WAITS[batch.waits_for]),
    batch.task_state === "failed" && el("p.batch-problem", {}, "The task failed; its ", crumb("log", run + logPath(batch)), ` says why, unless a user marked it so. ${clearing(batch)}`),
    batch.was_marked && el("p.batch-problem", {}, `The task was marked as success before its end: it orders and stores nothing more. ${clearing(batch)}`),
    batch.task_state === "skipped" && el("p.batch-problem", {}, `The task was skipped: it orders and stores nothing more. ${clearing(batch)}`),
    batch.unwanted > 0 && el("p.batch-problem", {}, `${amount(batch.unwanted)} submitted ${batch.unwanted === 1 ? "row is" : "rows are"} no longer among the rows of the task: unless put back there, no try and no clear stores ${batch.unwanted === 1 ? "its file. Its page says" : "their files. Their pages say"} how to.`),
    batch.removed && el("p.batch-problem", {}, batch.removed),
    batch.problem && el("p.batch-problem", {}, batch.problem),
    isOwn && el("p.quiet.batch-manifest", {}, el("span", {}, "Manifest "), copyable(batch.manifest, "the address of the manifest")),
  );
}

function clearing({ open, unwanted, unknown, paid, failed, left, is_shared: isShared, is_gone: isGone, later }) {
  if (isGone) return ""; // the problem says what a clear pays
  const unless = `, unless it has on_clear="new".${later && ` ${later}`}`;
  const again = "rows without a file again, as far as its limits (max_credits, budget) allow, and pays for those only";
  const unseen = " Both need the batch's journal, .vidu/ in its folder: if the folder was moved or removed, a clear orders, and pays for, all rows.";
  if (open === null) return `Clearing it resumes what goes on at the service, and orders the other ${again}${unless}${unseen}`;
  if (isShared) return `Clearing it resumes what goes on at the service of its own rows, and orders its own ${again}${unless}`;
  const isResumed = open > unwanted || paid > 0;
  const parts = [
    open - unwanted > unknown && "resumes what goes on at the service (rows that were cancelled are ordered again, and paid for)",
    unknown > 0 && "looks for the creates of unknown outcome in the account's list (those that it proves not to be there are ordered again, and paid for)",
    paid === 1 && "resumes the failed row whose generation may have a file (if it was cancelled, it is ordered again, and paid for)",
    paid > 1 && `resumes the ${amount(paid)} failed rows whose generations may have files (those that were cancelled are ordered again, and paid for)`,
    (failed - paid + left > 0 || !isResumed) && `orders the ${isResumed ? "other " : ""}${again}`,
  ];
  return `Clearing it ${parts.filter(Boolean).join(", ")}${unless}`;
}

function progressText(batch) {
  const task = ` · task ${batch.task_state ?? "without a status"}`;
  if (batch.stored === null) return [`${amount(batch.rows)} rows`, task];
  const ofAll = batch.is_shared ? `${amount(batch.rows)} ${batch.rows === 1 ? "row" : "rows"} of this task; of all tasks of the batch ${amount(batch.stored)} stored` : null;
  const parts = [
    ofAll ?? `${amount(batch.stored)} of ${amount(batch.rows)} rows stored`,
    batch.failed > 0 && `${amount(batch.failed)} failed`,
    batch.unknown > 0 && `${amount(batch.unknown)} of unknown outcome`,
    batch.open > batch.unknown && `${amount(batch.open - batch.unknown)} ${batch.is_shared ? "submitted" : batch.is_over ? "submitted and not collected" : "at the service"}`,
    batch.left > 0 && `${amount(batch.left)} to order`,
    batch.credits > 0 && `${amount(batch.credits)} credits${beforeRefunds(batch)}`,
  ].filter(Boolean);
  return [parts.join(" · "), task, ...(batch.deadline ? [" · timeout ", time(batch.deadline)] : [])];
}

/** Of a row that was cancelled with its batch, the batch has not seen the end: it counts what the submit named. */
export function beforeRefunds({ is_over: isOver, open, paid }) {
  return paid > 0 || (isOver && open > 0) ? " before refunds" : "";
}

function bar(batch) {
  const parts = { stored: batch.stored, failed: batch.failed, working: batch.open };
  const done = Math.round((100 * (batch.stored + batch.failed)) / batch.rows);
  const track = el("div.batch-bar", { role: "progressbar", "aria-valuenow": done, "aria-valuemin": 0, "aria-valuemax": 100, "aria-label": "Rows that have ended" });
  for (const [name, count] of Object.entries(parts)) {
    const part = el(`i.is-${name === "stored" ? "succeeded" : name}`, { "aria-hidden": "true" });
    part.style.width = `${(100 * count) / batch.rows}%`;
    track.append(part);
  }
  return track;
}

function amount(count) {
  return count.toLocaleString("en");
}
