// Applies the stored theme before anything is drawn. Runs as a classic script in <head>.
(() => {
  try {
    const theme = localStorage.getItem("bottega.theme");
    if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  } catch {
    // Storage may be forbidden; the system's theme is used.
  }
})();
