// Watching the model's server through /status, and saying on the page what it is doing.

const banner = document.getElementById("banner");
const model = document.getElementById("model");
const READY_EVERY = 4000;
const WAITING_EVERY = 700;

function sentence(state) {
  switch (state.phase) {
    case "ready":
      return "";
    case "loading":
      return state.restarts > 0
        ? "The model is being loaded again. Your conversation is safe."
        : "The model is being loaded. You can write already.";
    case "crashed":
      return `The model's server stopped: ${state.detail}. It starts again in ${Math.ceil(state.retry_in ?? 0)} s (restart ${state.restarts}). Your conversation is safe.`;
    case "failed":
      return `The model cannot be served: ${state.detail}`;
    case "offline":
      return "This page's server cannot be reached. Is `bottega web` still running? Trying again.";
    default:
      return "The model's server has been stopped.";
  }
}

export class Watch {
  // Calls `onChange(phase)` whenever the phase changes.
  constructor(onChange) {
    this.phase = "";
    this.onChange = onChange;
    this.timer = 0;
    document.addEventListener("visibilitychange", () => document.hidden || this.look());
    window.addEventListener("online", () => this.look());
    this.look();
  }

  get ready() {
    return this.phase === "ready";
  }

  async look() {
    clearTimeout(this.timer);
    let state;
    try {
      const response = await fetch("/status", { cache: "no-store" });
      state = response.ok ? await response.json() : { phase: "offline" };
    } catch {
      state = { phase: "offline" };
    }
    this.tell(state);
    this.timer = setTimeout(() => this.look(), this.ready ? READY_EVERY : WAITING_EVERY);
  }

  tell(state) {
    const text = sentence(state);
    if (banner.textContent !== text) banner.textContent = text;
    banner.hidden = text === "";
    banner.dataset.phase = state.phase;
    model.dataset.phase = state.phase;
    if (state.phase !== this.phase) {
      this.phase = state.phase;
      this.onChange(state.phase);
    }
  }
}
