// The page of a task that waits before its create: what stands on it until there is a generation.
import { STATES, el, seconds, time, zoneName } from "./common.js";

const FOR_SLOT = "The account is full, the service takes no more for now, or the connection has a limit (max_in_flight, min_balance).";
const FOR_PRICES = "Its budget may be spent: generations whose price is not known yet may cost the rest. Their end names the prices, and the task tries again by itself; its log has the numbers.";

/** 1st, 2nd, 3rd, 4th … 11th, 12th, 13th … 21st. */
function ordinal(number) {
  const isTeen = number % 100 >= 11 && number % 100 <= 13;
  return `${number}${isTeen ? "th" : ({ 1: "st", 2: "nd", 3: "rd" }[number % 10] ?? "th")}`;
}

function place({ place: own, length }) {
  if (own === null) return `one of more than ${length.toLocaleString("en")}`;
  return `${ordinal(own)} of ${length.toLocaleString("en")}`;
}

/** One sentence: how it waits, or that its turn has come. */
export function slotText(slot) {
  // With deferrable=False it waits there; else its wait is over: a slot is free, or the trigger has refused it.
  if (slot.for_prices) {
    const how = slot.in_worker ? "In a worker: the task waits" : slot.is_queued ? "Waiting" : "The task continues as soon as a worker takes it up. It has waited";
    return [`${how} for the prices of open generations, within its budget, since `, time(slot.since)];
  }
  if (slot.in_worker) return ["In a worker: the task checks its limits, then submits or waits for a slot. Waiting since ", time(slot.since)];
  if (!slot.is_queued) return "The wait for a slot is over: the task continues as soon as a worker takes it up";
  return [`Waiting for a free slot, ${place(slot)}, since `, time(slot.since)];
}

/** The panel beside it; `list` makes a list of its rows. */
export function slotPanel({ slot, refresh, pause }, list) {
  const rows = [
    ["Place", slot.is_queued && !slot.for_prices && place(slot)],
    ["Waits", el("span", {}, "since ", time(slot.since))],
    ["Triggerer", slot.is_queued && slot.has_triggerer === false && "none runs the wait"],
    ["Timeout", slot.deadline && time(slot.deadline)],
    ["Next refresh", refresh !== null && el("span.by-page", {}, `by this page within ${seconds(Math.max(refresh, pause))}`)],
  ];
  return [
    el("h2", {}, `${slot.for_prices ? STATES.prices : STATES.slot} (times in ${zoneName()})`),
    list(rows.filter(([, value]) => value)),
    el("p.quiet.slot-note", {}, `${slot.for_prices ? FOR_PRICES : FOR_SLOT} Nothing is submitted or paid yet.`),
  ];
}
