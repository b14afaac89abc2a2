// The panel that shows the prompt as the model reads it, token by token.

import { renderPrompt } from "./api.js";

const panel = document.getElementById("prompt");
const text = document.getElementById("prompt-text");
const count = document.getElementById("prompt-count");
let latest = 0;

// Shows the prompt for `body` ({messages} or {prompt}); null empties the panel.
export async function showPrompt(body) {
  const mine = ++latest;
  if (!panel.open) {
    count.textContent = "";
    return;
  }
  if (body === null) {
    text.textContent = "Nothing has been said yet.";
    count.textContent = "";
    return;
  }
  try {
    const rendered = await renderPrompt(body);
    if (mine !== latest) return;
    text.replaceChildren(...rendered.tokens.map(span));
    count.textContent = `${rendered.token_count} of ${rendered.context_length} tokens`;
  } catch (error) {
    if (mine === latest) text.textContent = error.message;
  }
}

function span(token) {
  const node = document.createElement("span");
  node.className = token.special ? "special" : "piece";
  node.textContent = token.text;
  node.title = `token ${token.id}`;
  return node;
}
