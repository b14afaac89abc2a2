// What the browser keeps: conversations, settings, theme (localStorage); the API key (this tab only).

export const CONVERSATIONS = "bottega.conversations";
const SETTINGS = "bottega.settings";

export const DEFAULTS = Object.freeze({
  system: "",
  temperature: 0.7,
  top_p: 0.95,
  top_k: null,
  min_p: null,
  repetition_penalty: null,
  max_tokens: null,
  seed: null,
  show_probabilities: false,
  keep_verdicts: true,
  model: null,
});

function read(key, fallback) {
  try {
    return JSON.parse(localStorage.getItem(key)) ?? fallback;
  } catch {
    return fallback;
  }
}

// Whether the browser's store is too full to keep `text`. Where storage is forbidden nothing is kept, nor given up.
function isTooFull(key, text) {
  try {
    localStorage.setItem(key, text);
    return false;
  } catch (error) {
    return error.name === "QuotaExceededError";
  }
}

export function loadSettings() {
  return { ...DEFAULTS, ...read(SETTINGS, {}) };
}

export function saveSettings(settings) {
  isTooFull(SETTINGS, JSON.stringify(settings));
}

export function saveTheme(theme) {
  isTooFull("bottega.theme", theme);
}

const newId = () => crypto.getRandomValues(new Uint32Array(2)).join("-");

export function newConversation() {
  return { id: newId(), created: Date.now(), messages: [] };
}

export function title(conversation) {
  const first = conversation.messages.find((message) => message.role === "user");
  return first ? first.content.slice(0, 80) : "New conversation";
}

export class Conversations {
  // All conversations, newest first; `current` is the one on the page.
  constructor() {
    const stored = read(CONVERSATIONS, null);
    this.all = Array.isArray(stored?.all) ? stored.all : [];
    this.current = this.all.find((one) => one.id === stored?.current) ?? this.begin();
  }

  begin() {
    this.all = this.all.filter((one) => one.messages.length > 0);
    this.current = newConversation();
    this.all.unshift(this.current);
    return this.current;
  }

  open(id) {
    this.current = this.all.find((one) => one.id === id) ?? this.current;
    this.save();
  }

  remove(id) {
    this.all = this.all.filter((one) => one.id !== id);
    if (this.current.id === id) this.begin();
    this.save();
  }

  // Takes in what another tab has saved, so that saving here does not undo it. `busy` keeps the current one as it is;
  // if another tab has gone on with it, they are two conversations from here on.
  takeIn(busy) {
    const all = read(CONVERSATIONS, null)?.all ?? [];
    const theirs = all.find((one) => one.id === this.current.id);
    const { messages } = this.current;
    if (!busy) this.current = theirs ?? this.current;
    else if (theirs?.messages.some((one, index) => one.role === "user" && one.content !== messages[index]?.content)) {
      this.current.id = newId();
    }
    this.all = [this.current, ...all.filter((one) => one.id !== this.current.id)].sort((a, b) => b.created - a.created);
  }

  // Saves; when the browser's store is full, gives up probabilities first, then the oldest conversations.
  save() {
    const data = () => JSON.stringify({ current: this.current.id, all: this.all });
    if (!isTooFull(CONVERSATIONS, data())) return;
    for (const conversation of [...this.all].reverse()) {
      if (conversation === this.current) continue;
      for (const message of conversation.messages) delete message.tokens;
      if (!isTooFull(CONVERSATIONS, data())) return;
    }
    while (this.all.length > 1 && isTooFull(CONVERSATIONS, data())) {
      const oldest = this.all.findLastIndex((one) => one !== this.current);
      this.all.splice(oldest, 1);
    }
  }
}

let key = "";
try {
  key = sessionStorage.getItem("bottega.key") ?? "";
} catch {
  // Storage may be forbidden; the key lasts as long as the page.
}

export const apiKey = () => key;

export function keepApiKey(given) {
  key = given;
  try {
    sessionStorage.setItem("bottega.key", given);
  } catch {
    // As above.
  }
}
