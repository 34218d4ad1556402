document.documentElement.classList.add("js");
try {
  const theme = localStorage.getItem("gradcam-theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch { /* a sandbox without storage */ }
