// The button that changes light and dark; the choice is kept, and is the chat page's too.

const button = document.querySelector("#theme");
const system = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (document.documentElement.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
const name = () => (document.querySelector("#theme-label").textContent = isDark() ? "Use light colours" : "Use dark colours");

button.addEventListener("click", () => {
  const theme = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  try {
    localStorage.setItem("bottega.theme", theme);
  } catch {
    // Storage may be forbidden; the choice holds for this page.
  }
  name();
});
name();
