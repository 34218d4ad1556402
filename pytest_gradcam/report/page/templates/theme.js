"use strict";
// The theme that a person chose, on every page of ours.
{
  const chosen = document.getElementById("theme");
  chosen.value = document.documentElement.dataset.theme ?? "";
  chosen.addEventListener("change", () => {
    if (chosen.value) document.documentElement.dataset.theme = chosen.value;
    else delete document.documentElement.dataset.theme;
    try { localStorage.setItem("gradcam-theme", chosen.value); } catch { /* a sandbox without storage: not kept, then */ }
  });
  chosen.disabled = false;
}
