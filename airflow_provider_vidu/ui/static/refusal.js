// A page that has nothing to show offers the ways out of it.
import { el, fill, isFramed, topBar, waysOut } from "./common.js";

if (isFramed) document.documentElement.dataset.framed = "true";
fill(document.getElementById("top"), "refusal", () => topBar([], []));
const main = document.getElementById("main");
main.prepend(el("h1", {}, document.title));
main.append(...waysOut(Number(main.querySelector("[data-status]").dataset.status)));
