// Follows the colour mode chosen in Airflow's UI, which keeps it under this key on the same origin. Within Airflow's
// frame its colours are taken over as they are: a deployment may have a theme of its own ([api] theme).
(function () {
  "use strict";
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const own = document.documentElement;
  const COLOURS = {
    "--ground": "bg",
    "--panel": "bg",
    "--line": "border",
    "--text": "fg",
    "--quiet": "fg-muted",
    "--plain-soft": "bg-emphasized",
    "--brand": "brand-fg",
    "--brand-soft": "brand-subtle",
  };
  let outer = null;
  try {
    outer = window.parent === window ? null : window.parent.document.documentElement;
  } catch {
    // The page of another origin around it: nothing is known of its colours.
  }
  function apply() {
    let chosen = null;
    try {
      chosen = window.localStorage.getItem("theme");
    } catch {
      // A sandboxed frame has no storage: then the system decides.
    }
    const dark = chosen === "dark" || (chosen !== "light" && system.matches);
    own.dataset.theme = dark ? "dark" : "light";
    if (outer) takeOver(dark);
  }
  function takeOver(dark) {
    const around = window.parent.getComputedStyle(outer);
    // Until Airflow has changed its own mode, its colours are those of the other one.
    const isSame = outer.classList.contains(dark ? "dark" : "light");
    for (const [ours, theirs] of Object.entries(COLOURS)) {
      const value = isSame ? around.getPropertyValue(`--chakra-colors-${theirs}`).trim() : "";
      if (value) own.style.setProperty(ours, value);
      else own.style.removeProperty(ours);
    }
  }
  apply();
  system.addEventListener("change", apply);
  window.addEventListener("storage", apply);
  if (outer) new MutationObserver(apply).observe(outer, { attributes: true, attributeFilter: ["class"] });
})();
