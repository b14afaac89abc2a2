// The settings panel: a form that mirrors the stored settings.

import { DEFAULTS, loadSettings, saveSettings } from "./store.js";

const form = document.getElementById("settings-form");
const panel = document.getElementById("settings");
const opener = document.getElementById("open-settings");
const SAMPLING = ["temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_tokens", "seed"];

export class Settings {
  // `onChange(settings)` is called after every change.
  constructor(onChange) {
    this.values = loadSettings();
    this.onChange = onChange;
    this.fill();
    form.addEventListener("input", () => this.take());
    form.addEventListener("change", (event) => event.target.reportValidity());
    form.addEventListener("submit", (event) => event.preventDefault());
    document.getElementById("reset-settings").addEventListener("click", () => this.set({ ...DEFAULTS }));
    opener.addEventListener("click", () => this.toggle());
    document.getElementById("close-settings").addEventListener("click", () => this.toggle());
    panel.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      event.stopPropagation();
      this.toggle();
    });
  }

  fill() {
    for (const [name, value] of Object.entries(this.values)) {
      const field = form.elements[name];
      if (!field) continue;
      if (field.type === "checkbox") field.checked = value;
      else field.value = value ?? "";
    }
  }

  set(values) {
    this.values = values;
    this.fill();
    saveSettings(values);
    this.onChange(values);
  }

  take() {
    const values = { ...this.values };
    for (const name of Object.keys(DEFAULTS)) {
      const field = form.elements[name];
      if (!field) continue; // chosen elsewhere on the page
      if (field.type === "checkbox") values[name] = field.checked;
      else if (field.type === "number" && !field.checkValidity()) continue; // the last good value stays; the browser says why
      else if (field.type === "number") values[name] = field.value === "" ? null : Number(field.value);
      else values[name] = field.value;
    }
    this.values = values;
    saveSettings(values);
    this.onChange(values);
  }

  toggle() {
    panel.hidden = !panel.hidden;
    opener.setAttribute("aria-expanded", String(!panel.hidden));
    if (panel.hidden) opener.focus();
    else form.elements.show_probabilities.focus();
  }

  // The fields of a request; what is left empty is the server's default.
  get sampling() {
    return Object.fromEntries(SAMPLING.filter((name) => this.values[name] !== null).map((name) => [name, this.values[name]]));
  }
}
