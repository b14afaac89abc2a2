// The chat page: wires the parts together.

import { Failure, getModels, streamAnswer } from "./api.js";
import { exportJson, exportMarkdown } from "./download.js";
import { $, askForKey, isForPage, onceAFrame, onKey } from "./frame.js";
import { clearMessages, MessageView, Narrator } from "./messages.js";
import { showPrompt } from "./prompt.js";
import { Settings } from "./settings.js";
import { Watch } from "./status.js";
import { CONVERSATIONS, Conversations, title } from "./store.js";
import { keepVerdict } from "./verdicts.js";

const conversations = new Conversations();
let models = []; // the entries of /v1/models, once known
let model = null; // the one that answers
let views = [];
let running = null; // the AbortController of the answer under way

const settings = new Settings((values) => {
  if (views.some((view) => view.showTokens !== values.show_probabilities || view.withThumbs !== values.keep_verdicts)) drawConversation();
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
    models = await getModels();
  } catch (error) {
    if (error.status === 401) askForKey();
    return;
  }
  // The one chosen before; else an adapter, where one was given.
  const wanted = models.find((card) => card.id === settings.values.model) ?? models.find((card) => card.parent) ?? models[0];
  $("model-choice").replaceChildren(...models.map((card) => new Option(card.id, card.id, false, card === wanted)));
  $("model-choice").hidden = models.length < 2;
  $("model-name").hidden = models.length > 1;
  useModel(wanted);
}

function useModel(card) {
  model = card;
  const facts = model.bottega;
  $("model-name").textContent = model.id;
  $("model-facts").textContent = `${human(facts.parameters)} parameters · context ${facts.context_length.toLocaleString("en")}`;
  document.title = `${model.id} · Bottega`;
  $("welcome-text").textContent = isChat()
    ? "Write something below. Only your own machine reads it."
    : "This model has no chat template: it continues the text that you write.";
  drawConversation();
}

$("model-choice").addEventListener("change", (event) => {
  settings.set({ ...settings.values, model: event.target.value });
  useModel(models.find((card) => card.id === event.target.value));
  refreshPrompt();
});
onKey(learnModel);

// ---------------------------------------------------------------- the conversation

const actions = {
  async copy(message, button) {
    // Browsers give no clipboard to a page that came over plain HTTP from another machine.
    const copied = await navigator.clipboard?.writeText(message.content).then(() => true, () => false);
    if (copied) keep(message, "copied");
    button.textContent = copied ? "Copied" : "The browser refused";
    setTimeout(() => (button.textContent = "Copy"), 1500);
  },
  edit(message) {
    if (running) return;
    if (message.role === "assistant") {
      views.find((view) => view.message === message).correct((text) => corrected(message, text));
      return;
    }
    const { messages } = conversations.current;
    messages.splice(messages.indexOf(message));
    $("message").value = message.content;
    fitComposer();
    changed();
    $("message").focus();
  },
  retry: () => retry(),
  up: (message) => thumb(message, "up"),
  down: (message) => thumb(message, "down"),
};

// Keeps what was done with an answer, unless the settings say not to; whether it was kept.
async function keep(message, verdict, more) {
  const known = message.role === "assistant" && message.model && message.content;
  return Boolean(known && settings.values.keep_verdicts && (await keepVerdict(conversations.current, message, verdict, more)));
}

async function thumb(message, verdict) {
  const wanted = message.thumb === verdict ? "none" : verdict; // the same thumb again takes it back
  const kept = await keep(message, wanted);
  if (kept) message.thumb = wanted;
  views.find((view) => view.message === message)?.showThumb(kept);
  conversations.save();
}

function corrected(message, text) {
  keep(message, "edited", { edited: text });
  message.original ??= message.content;
  message.content = text;
  delete message.tokens; // they are of the answer as it was
  changed();
}

function addView(message) {
  const view = new MessageView(message, {
    modelName: modelName(),
    showTokens: settings.values.show_probabilities,
    withThumbs: settings.values.keep_verdicts,
    actions,
  });
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
  else showPrompt({ model: modelName(), ...(isChat() ? { messages } : { prompt: messages.map((one) => one.content).join("") }) });
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
  if (messages.at(-1)?.role === "assistant") {
    keep(messages.at(-1), "regenerated");
    messages.pop();
  }
  if (messages.length === 0) return;
  changed();
  focusMessage(); // the button that was pressed is gone
  await answer();
}

async function answer() {
  const request = { model: modelName(), chat: isChat(), messages: requestMessages(), sampling: settings.sampling };
  const message = { role: "assistant", content: "", tokens: [], model: request.model };
  if (request.messages[0].role === "system") message.system = request.messages[0].content;
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

// ---------------------------------------------------------------- conversations, shortcuts

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
  } else if (isForPage(event) && (event.key === "/" || event.key === "?")) {
    event.preventDefault();
    if (event.key === "/") $("message").focus();
    else $("shortcuts").showModal();
  }
});

drawConversation();
updateComposer();
focusMessage();
