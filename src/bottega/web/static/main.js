// The chat page: wires the parts together.

import { Failure, getModel, streamAnswer } from "./api.js";
import { exportJson, exportMarkdown } from "./download.js";
import { clearMessages, MessageView, Narrator } from "./messages.js";
import { showPrompt } from "./prompt.js";
import { Settings } from "./settings.js";
import { Watch } from "./status.js";
import { CONVERSATIONS, Conversations, keepApiKey, saveTheme, title } from "./store.js";

const $ = (id) => document.getElementById(id);
const conversations = new Conversations();
let model = null; // the entry of /v1/models, once known
let views = [];
let running = null; // the AbortController of the answer under way

const settings = new Settings((values) => {
  if (views.some((view) => view.showTokens !== values.show_probabilities)) drawConversation();
  refreshPrompt();
});
const watch = new Watch(async (phase) => {
  updateComposer();
  if (phase === "ready") await learnModel();
});

// ---------------------------------------------------------------- the model

const human = (count) => (count >= 1e9 ? `${(count / 1e9).toFixed(1)} B` : count >= 1e6 ? `${(count / 1e6).toFixed(1)} M` : `${Math.round(count / 1e3)} k`);
const isChat = () => model?.bottega?.has_chat_template ?? true;
const modelName = () => model?.id ?? "Model";

async function learnModel() {
  try {
    model = await getModel();
  } catch (error) {
    if (error.status === 401) askForKey();
    return;
  }
  const facts = model.bottega;
  $("model-name").textContent = model.id;
  $("model-facts").textContent = `${human(facts.parameters)} parameters · context ${facts.context_length.toLocaleString("en")}`;
  document.title = `${model.id} · Bottega`;
  if (!isChat()) $("welcome-text").textContent = "This model has no chat template: it continues the text that you write.";
  drawConversation();
}

function askForKey() {
  const dialog = $("key");
  if (!dialog.open) dialog.showModal();
}

$("key-form").addEventListener("submit", () => {
  keepApiKey($("key-value").value.trim());
  $("key-value").value = "";
  learnModel();
});

// ---------------------------------------------------------------- the conversation

const actions = {
  async copy(message, button) {
    // Browsers give no clipboard to a page that came over plain HTTP from another machine.
    const copied = await navigator.clipboard?.writeText(message.content).then(() => true, () => false);
    button.textContent = copied ? "Copied" : "The browser refused";
    setTimeout(() => (button.textContent = "Copy"), 1500);
  },
  edit(message) {
    if (running) return;
    const { messages } = conversations.current;
    messages.splice(messages.indexOf(message));
    $("message").value = message.content;
    fitComposer();
    changed();
    $("message").focus();
  },
  retry: () => retry(),
};

function addView(message) {
  const view = new MessageView(message, { modelName: modelName(), showTokens: settings.values.show_probabilities, actions });
  views.push(view);
  return view;
}

function drawConversation() {
  if (running) return; // drawn again when the answer ends
  clearMessages();
  views = [];
  conversations.current.messages.forEach(addView);
  updateViews();
}

function updateViews() {
  const { messages } = conversations.current;
  $("welcome").hidden = messages.length > 0;
  views.forEach((view, index) => view.allowRetry(index === views.length - 1 && !running));
}

// After the list of messages has changed: draw, save, render the prompt.
function changed() {
  drawConversation();
  conversations.save();
  refreshPrompt();
}

function requestMessages() {
  const said = conversations.current.messages.map(({ role, content }) => ({ role, content }));
  return settings.values.system && isChat() ? [{ role: "system", content: settings.values.system }, ...said] : said;
}

function refreshPrompt() {
  if (!watch?.ready || running) return;
  const messages = requestMessages();
  const last = messages.at(-1);
  if (last?.role === "assistant") messages.pop(); // the prompt of the answer that stands there
  if (!messages.some((one) => one.role === "user")) showPrompt(null);
  else showPrompt(isChat() ? { messages } : { prompt: messages.map((one) => one.content).join("") });
}

async function send() {
  const text = $("message").value;
  if (running || !watch.ready || text.trim() === "") return;
  $("message").value = "";
  fitComposer();
  conversations.current.messages.push({ role: "user", content: text });
  changed();
  focusMessage();
  await answer();
}

async function retry() {
  if (running || !watch.ready) return;
  const { messages } = conversations.current;
  if (messages.at(-1)?.role === "assistant") messages.pop();
  if (messages.length === 0) return;
  changed();
  focusMessage(); // the button that was pressed is gone
  await answer();
}

async function answer() {
  const request = { model: modelName(), chat: isChat(), messages: requestMessages(), sampling: settings.sampling };
  const message = { role: "assistant", content: "", tokens: [] };
  const conversation = conversations.current;
  conversation.messages.push(message);
  const controller = new AbortController();
  running = controller;
  const view = addView(message);
  view.busy = true;
  updateViews();
  updateComposer();
  scrollToEnd(true);
  const narrator = new Narrator();
  const draw = onceAFrame(() => {
    if (running !== controller) return;
    const follow = nearEnd();
    view.update();
    if (follow) scrollToEnd();
  });
  const started = performance.now();
  try {
    for await (const piece of streamAnswer({ ...request, signal: controller.signal })) {
      message.content += piece.text;
      message.tokens.push(...piece.tokens);
      message.finish = piece.finish ?? message.finish;
      message.usage = piece.usage ?? message.usage;
      narrator.follow(message.content);
      draw();
    }
  } catch (error) {
    failed(message, error);
  } finally {
    message.seconds = (performance.now() - started) / 1000;
    narrator.follow(message.content, true);
    if (running === controller) running = null;
    conversations.save();
    if (conversation === conversations.current) drawConversation();
    if (message.trouble) setTimeout(() => watch.look(), 300); // by then the web app knows why
    updateComposer();
    refreshPrompt();
  }
}

function failed(message, error) {
  if (error.name === "AbortError") {
    message.finish = "stopped";
    return;
  }
  if (!(error instanceof Failure)) throw error;
  message.trouble = `${error.message} ${error.advice}`.trim();
  if (error.status === 401) askForKey();
}

// ---------------------------------------------------------------- scrolling and drawing

const page = document.scrollingElement;
const nearEnd = () => page.scrollHeight - page.scrollTop - page.clientHeight < 120;

function scrollToEnd(always = false) {
  if (always || !window.getSelection()?.toString()) page.scrollTop = page.scrollHeight;
}

function onceAFrame(work) {
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

// ---------------------------------------------------------------- the composer

function updateComposer() {
  $("send").hidden = Boolean(running);
  $("stop").hidden = !running;
  $("send").disabled = !watch?.ready;
}

// Puts the cursor into the message field; not on touch screens, where that opens the keyboard.
function focusMessage() {
  if (matchMedia("(hover: hover)").matches) $("message").focus();
}

function fitComposer() {
  const field = $("message");
  field.style.height = "auto";
  field.style.height = `${Math.min(field.scrollHeight, window.innerHeight * 0.4)}px`;
}

$("message").addEventListener("input", fitComposer);
$("message").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    send();
  }
});
$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
$("stop").addEventListener("click", () => {
  running?.abort();
  $("message").focus();
});
$("prompt").addEventListener("toggle", refreshPrompt);

// ---------------------------------------------------------------- conversations, dialogs, theme

// Ends the answer under way: its conversation leaves the page.
function leave() {
  running?.abort();
  running = null;
}

function begin() {
  leave();
  conversations.begin();
  changed();
  $("message").focus();
}

function listConversations() {
  const rows = conversations.all.map((one) => {
    const row = document.createElement("li");
    const open = document.createElement("button");
    open.type = "button";
    open.className = "quiet";
    open.textContent = title(one);
    if (one === conversations.current) open.setAttribute("aria-current", "true");
    open.addEventListener("click", () => {
      leave();
      conversations.open(one.id);
      $("conversations").close();
      changed();
    });
    const remove = document.createElement("button");
    remove.type = "button";
    remove.className = "quiet";
    remove.textContent = "Delete";
    remove.setAttribute("aria-label", `Delete “${title(one)}”`);
    remove.addEventListener("click", () => {
      if (one === conversations.current) leave();
      conversations.remove(one.id);
      changed();
      listConversations();
      $("conversation-list").querySelector("button").focus();
    });
    row.append(open, remove);
    return row;
  });
  $("conversation-list").replaceChildren(...rows);
}

// A page that is left in mid-answer keeps what came so far.
window.addEventListener("pagehide", () => {
  if (!running) return;
  conversations.current.messages.at(-1).finish = "stopped";
  conversations.save();
});

window.addEventListener("storage", (event) => {
  if (event.key !== CONVERSATIONS) return;
  conversations.takeIn(Boolean(running));
  drawConversation();
  refreshPrompt();
});

const exported = () => [conversations.current, { model: modelName(), system: settings.values.system }];
$("new").addEventListener("click", begin);
$("open-conversations").addEventListener("click", () => {
  listConversations();
  $("conversations").showModal();
});
$("export-json").addEventListener("click", () => exportJson(...exported()));
$("export-markdown").addEventListener("click", () => exportMarkdown(...exported()));
$("open-shortcuts").addEventListener("click", () => $("shortcuts").showModal());
for (const button of document.querySelectorAll("[data-close]")) {
  button.addEventListener("click", () => button.closest("dialog").close());
}

const isDark = () => (document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
const nameTheme = () => ($("theme-label").textContent = isDark() ? "Use light colours" : "Use dark colours");
$("theme").addEventListener("click", () => {
  const theme = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  saveTheme(theme);
  nameTheme();
});
nameTheme();

const SHORTCUTS = {
  KeyN: begin,
  KeyR: retry,
  KeyS: () => settings.toggle(),
  KeyP: () => settings.set({ ...settings.values, show_probabilities: !settings.values.show_probabilities }),
};

document.addEventListener("keydown", (event) => {
  if (document.querySelector("dialog[open]")) return;
  if (event.key === "Escape" && running) {
    running.abort();
  } else if (event.altKey && !event.ctrlKey && !event.metaKey && SHORTCUTS[event.code]) {
    event.preventDefault();
    SHORTCUTS[event.code]();
  } else if (!event.target.closest("input, textarea") && (event.key === "/" || event.key === "?")) {
    event.preventDefault();
    if (event.key === "/") $("message").focus();
    else $("shortcuts").showModal();
  }
});

drawConversation();
updateComposer();
focusMessage();
