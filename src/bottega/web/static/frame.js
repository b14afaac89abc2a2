// What every page has: the theme, the API key's dialog, dialogs that close.

import { keepApiKey, saveTheme } from "./store.js";

export const $ = (id) => document.getElementById(id);

const isDark = () => (document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
const nameTheme = () => ($("theme-label").textContent = isDark() ? "Use light colours" : "Use dark colours");
$("theme").addEventListener("click", () => {
  const theme = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  saveTheme(theme);
  nameTheme();
});
nameTheme();

for (const button of document.querySelectorAll("[data-close]")) {
  button.addEventListener("click", () => button.closest("dialog").close());
}
$("open-shortcuts").addEventListener("click", () => $("shortcuts").showModal());

export function askForKey() {
  const dialog = $("key");
  if (!dialog.open) dialog.showModal();
}

// Calls `use` when a key has been entered.
export function onKey(use) {
  $("key-form").addEventListener("submit", () => {
    keepApiKey($("key-value").value.trim());
    $("key-value").value = "";
    use();
  });
}

// Whether `event` is one for the page itself: no dialog is open, and nobody is writing.
export const isForPage = (event) => !document.querySelector("dialog[open]") && !event.target.closest("input, textarea, select");

export function make(name, className, text) {
  const node = document.createElement(name);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

// `work`, called at most once a frame.
export function onceAFrame(work) {
  let waiting = false;
  return () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      work();
    });
  };
}
