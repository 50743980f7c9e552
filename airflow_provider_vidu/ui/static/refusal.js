// A page that has said no offers the way back.
import { airflow, el, isFramed } from "./common.js";

if (!isFramed) document.getElementById("main").append(el("p", {}, el("a", { href: airflow.pathname }, "Back to Airflow")));
