// Follows the colour mode chosen in Airflow's UI, which keeps it under this key on the same origin.
(function () {
  "use strict";
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  function apply() {
    let chosen = null;
    try {
      chosen = window.localStorage.getItem("theme");
    } catch {
      // A sandboxed frame has no storage: then the system decides.
    }
    const dark = chosen === "dark" || (chosen !== "light" && system.matches);
    document.documentElement.dataset.theme = dark ? "dark" : "light";
  }
  apply();
  system.addEventListener("change", apply);
  window.addEventListener("storage", apply);
})();
