// Messages on the page: as formatted text, or as tokens with probabilities.

import { markdown } from "./markdown.js";
import { keepTabStop, tokenGroup, tokenSpan } from "./tokens.js";

const template = document.getElementById("message-template");
const correction = document.getElementById("correction-template");
const container = document.getElementById("messages");
const live = document.getElementById("live");

const ENDINGS = {
  length: "ended at the limit of its length",
  stopped: "stopped by you",
};

export class MessageView {
  // One message; `actions` are {copy, edit, retry, up, down}, each called with the message and the button.
  constructor(message, { modelName, showTokens, withThumbs, actions }) {
    this.message = message;
    this.showTokens = showTokens;
    this.withThumbs = withThumbs;
    this.node = template.content.firstElementChild.cloneNode(true);
    this.node.dataset.role = message.role;
    this.part = (selector) => this.node.querySelector(selector);
    this.part(".who").textContent = message.role === "user" ? "You" : message.model ?? modelName;
    for (const button of this.node.querySelectorAll(".thumb")) button.hidden = !withThumbs || !message.model;
    for (const button of this.node.querySelectorAll("[data-action]")) {
      button.addEventListener("click", () => actions[button.dataset.action](message, button));
    }
    container.append(this.node);
    this.draw();
    this.finish();
  }

  get asTokens() {
    return this.showTokens && Boolean(this.message.tokens?.length);
  }

  // Draws the content from scratch.
  draw() {
    const content = document.createElement("div");
    content.className = "content";
    if (this.asTokens) {
      content.classList.add("tokens");
      tokenGroup(content);
      content.append(...this.message.tokens.map(tokenSpan));
      keepTabStop(content);
    } else if (this.message.role === "user") {
      content.classList.add("plain");
      content.textContent = this.message.content;
    } else {
      content.append(...markdown(this.message.content));
    }
    this.part(".content").replaceWith(content);
    this.drawnTokens = this.message.tokens?.length ?? 0;
  }

  // Draws what has come since the last time.
  update() {
    const content = this.part(".content");
    if (!content.classList.contains("tokens") || !this.asTokens) {
      this.draw();
      return;
    }
    content.append(...this.message.tokens.slice(this.drawnTokens).map(tokenSpan));
    this.drawnTokens = this.message.tokens.length;
  }

  set busy(busy) {
    this.node.classList.toggle("busy", busy);
    this.node.setAttribute("aria-busy", String(busy));
  }

  // Shows how the answer ended.
  finish() {
    const { role, finish, trouble, usage, seconds, original } = this.message;
    const said = [];
    if (usage) {
      said.push(`${usage.completion_tokens} tokens`);
      if (seconds > 0) said.push(`${(usage.completion_tokens / seconds).toFixed(0)} tokens/s`);
    }
    if (original !== undefined) said.push("corrected by you");
    if (ENDINGS[finish]) said.push(ENDINGS[finish]);
    this.part(".stats").textContent = role === "assistant" ? said.join(" · ") : "";
    this.part(".trouble").hidden = !trouble;
    this.part(".trouble").textContent = trouble ?? "";
    this.showThumb(true);
  }

  // Shows which thumb is given; says so where the last one could not be kept.
  showThumb(kept) {
    for (const verdict of ["up", "down"]) {
      this.part(`[data-action="${verdict}"]`).setAttribute("aria-pressed", String(this.message.thumb === verdict));
    }
    if (!kept) this.part(".stats").textContent = "It could not be kept.";
  }

  // Lets the person correct the answer in its place; `keep` is called with a text that differs.
  correct(keep) {
    if (this.part(".correction")) return;
    const form = correction.content.firstElementChild.cloneNode(true);
    const field = form.querySelector("textarea");
    const end = () => {
      form.replaceWith(content);
      this.part(".actions").hidden = false;
      this.part('[data-action="edit"]').focus();
    };
    field.value = this.message.content;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      end();
      if (field.value !== this.message.content) keep(field.value);
    });
    form.querySelector("[data-cancel]").addEventListener("click", end);
    form.addEventListener("keydown", (event) => {
      if (event.key === "Escape") end();
      else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
    });
    const content = this.part(".content");
    const { height } = content.getBoundingClientRect();
    content.replaceWith(form);
    this.part(".actions").hidden = true;
    field.style.height = `${Math.max(height, 100)}px`;
    field.focus();
  }

  allowRetry(allowed) {
    this.part('[data-action="retry"]').hidden = !allowed;
  }
}

export function clearMessages() {
  container.replaceChildren();
}

// Says a growing text to screen readers sentence by sentence, not token by token.
export class Narrator {
  constructor() {
    live.replaceChildren();
    this.said = 0;
  }

  follow(text, done = false) {
    const rest = text.slice(this.said);
    const end = done ? rest.length : Math.max(...[". ", "! ", "? ", "\n"].map((mark) => rest.lastIndexOf(mark))) + 1;
    if (end <= 0) return;
    const line = document.createElement("p");
    line.textContent = rest.slice(0, end);
    live.append(line);
    this.said += end;
  }
}
