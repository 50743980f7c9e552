// A page that has nothing to show offers the ways out of it.
import { isFramed, waysOut } from "./common.js";

if (isFramed) document.documentElement.dataset.framed = "true";
document.getElementById("main").append(...waysOut());
