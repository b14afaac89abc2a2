// The arena: one prompt, two answers, a blind vote. The page knows "left" and "right"; which model is on which
// side it learns with the reply to the vote.

import { events, Failure, getModels, request } from "./api.js";
import { $, askForKey, isForPage, make, onceAFrame, onKey } from "./frame.js";
import { markdown } from "./markdown.js";
import { showResults } from "./results.js";
import { Watch } from "./status.js";

const SIDES = { left: "A", right: "B" };
const KEYS = { a: "left", b: "right", t: "tie", x: "both_bad" };
const ENDINGS = { length: "ended at the limit of its length" };

let state = "asking"; // "asking" → "answering" → "voting" → "voted"
let turns = []; // the conversation before the prompt, without a system prompt
let prompt = "";
let duel = ""; // the id of the comparison
let answers = {}; // side → text
let controller = null;
let enough = false; // whether two models are served

const watch = new Watch((phase) => {
  if (phase === "ready") begin();
  else show(state);
});

async function begin() {
  await Promise.all([learnModels(), refresh()]);
  show(state);
}

async function learnModels() {
  try {
    const models = await getModels();
    enough = models.length > 1;
    $("model-name").textContent = `${models.length} ${models.length === 1 ? "model" : "models"}`;
    $("model-facts").textContent = models.map((card) => card.id).join(", ");
    if (!enough) $("welcome-text").textContent = "It takes two models: start `bottega web` with several, or with one and its adapters.";
  } catch (error) {
    failed(error);
  }
}

async function refresh() {
  try {
    showResults(await (await request("/feedback/results")).json());
  } catch (error) {
    if (error.status === 401) askForKey();
    else $("history-note").textContent = error.message;
  }
}

onKey(begin);

// What a link points to has moved when the results are there.
if (location.hash === "#answers") refresh().then(() => $("answers").scrollIntoView());

// ---------------------------------------------------------------- states

function show(next) {
  state = next;
  $("main").dataset.state = state;
  const voting = state === "voting";
  $("composer").hidden = state !== "asking";
  $("ballot").hidden = state === "asking" || state === "voted";
  $("next").hidden = state !== "voted";
  $("stop").hidden = state !== "answering";
  $("open-sampling").hidden = state !== "asking";
  $("send").disabled = !(watch?.ready && enough);
  $("welcome").hidden = state !== "asking" || turns.length > 0;
  for (const button of $("ballot").children) button.disabled = !voting;
}

const say = (text) => ($("said").textContent = text);

function failed(error) {
  if (error.name === "AbortError") return;
  if (!(error instanceof Failure)) throw error;
  if (error.status === 401) askForKey();
  $("trouble").textContent = `${error.message} ${error.advice}`.trim();
  $("trouble").hidden = false;
}

// ---------------------------------------------------------------- asking and answering

const side = (name) => document.querySelector(`.answer[data-side="${name}"]`);

function messageNode(role, who, content) {
  const node = make("article", "message");
  node.dataset.role = role;
  const body = make("div", "content");
  if (role === "user") body.classList.add("plain");
  body.append(...(role === "user" ? [content] : markdown(content)));
  node.append(make("h3", "who", who), body);
  return node;
}

function drawTurns() {
  const said = prompt ? [...turns, { role: "user", content: prompt }] : turns;
  $("messages").replaceChildren(...said.map((turn) => messageNode(turn.role, turn.role === "user" ? "You" : turn.model, turn.content)));
}

function clearPair() {
  answers = { left: "", right: "" };
  $("trouble").hidden = true;
  for (const name of Object.keys(SIDES)) {
    const node = side(name);
    delete node.dataset.outcome;
    node.classList.remove("busy");
    node.querySelector(".name").textContent = "";
    node.querySelector(".content").replaceChildren();
    node.querySelector(".ending").textContent = "";
  }
}

function requestBody() {
  const said = turns.map(({ role, content }) => ({ role, content }));
  const system = $("system").value.trim() ? [{ role: "system", content: $("system").value }] : [];
  const messages = [...system, ...said, { role: "user", content: prompt }];
  return { messages, temperature: Number($("temperature").value), max_tokens: Number($("max_tokens").value) };
}

async function ask() {
  const text = $("message").value;
  if (state !== "asking" || $("send").disabled || text.trim() === "") return;
  prompt = text;
  clearPair();
  drawTurns();
  $("pair").hidden = false;
  for (const name of Object.keys(SIDES)) side(name).classList.add("busy");
  show("answering");
  say("Both are answering.");
  $("pair").focus({ preventScroll: true });
  $("messages").lastElementChild.scrollIntoView({ block: "nearest" });
  controller = new AbortController();
  try {
    await listen(await request("/feedback/duels", requestBody(), controller.signal));
    $("message").value = "";
    show("voting");
    say("Both have answered. Which is better?");
  } catch (error) {
    undo(error);
  }
}

// What was stopped or failed is no comparison: back to the prompt.
function undo(error) {
  prompt = "";
  clearPair();
  $("pair").hidden = true;
  drawTurns();
  show("asking");
  say(error.name === "AbortError" ? "Stopped. Without both answers there is no vote." : "");
  $("message").focus();
  failed(error);
}

async function listen(response) {
  const draw = onceAFrame(() => {
    for (const name of Object.keys(SIDES)) side(name).querySelector(".content").replaceChildren(...markdown(answers[name]));
  });
  const running = new Set(Object.keys(SIDES));
  for await (const data of events(response)) {
    const piece = JSON.parse(data);
    if (piece.error) throw new Failure(piece.error.message, { status: 502, code: piece.error.code });
    if (piece.id) duel = piece.id;
    if (piece.text) answers[piece.side] += piece.text;
    if (piece.finish) {
      running.delete(piece.side);
      side(piece.side).classList.remove("busy");
      side(piece.side).querySelector(".ending").textContent = ENDINGS[piece.finish] ?? "";
    }
    draw();
  }
  if (running.size > 0) throw new Failure("The answers broke off.", { status: 502, code: "model_stopped" });
}

// ---------------------------------------------------------------- voting

async function vote(winner) {
  if (state !== "voting") return;
  show("counting"); // the ballot is closed
  try {
    const body = { winner };
    reveal(await (await request(`/feedback/duels/${duel}/vote`, body)).json());
    refresh();
  } catch (error) {
    if (error.status === 404 || error.status === 409) {
      undo(error); // the web app was started anew, or another tab has voted
    } else {
      show("voting");
      failed(error);
    }
  }
}

function reveal(result) {
  const better = result.winner in SIDES ? result.winner : null;
  for (const name of Object.keys(SIDES)) {
    side(name).querySelector(".name").textContent = result[name];
    side(name).dataset.outcome = better === null ? result.winner : better === name ? "won" : "lost";
  }
  const which = `A was ${result.left}, B was ${result.right}.`;
  const verdicts = { left: "A is better.", right: "B is better.", tie: "A tie.", both_bad: "Both bad." };
  say(`${verdicts[result.winner]} ${which}`);
  const kept = better ?? "left";
  $("follow").hidden = result.winner === "both_bad";
  $("follow").textContent = `Follow up on ${better === null ? "A" : "the better answer"}`;
  $("follow").onclick = () => {
    turns.push({ role: "user", content: prompt }, { role: "assistant", content: answers[kept], model: result[kept] });
    next("Write a follow-up", "Two models are drawn anew; both read the conversation above.");
  };
  show("voted");
  $("new").focus();
}

function next(placeholder, text) {
  prompt = "";
  $("pair").hidden = true;
  drawTurns();
  $("message").placeholder = placeholder;
  fit();
  show("asking");
  say(text);
  $("message").focus();
}

$("new").addEventListener("click", () => {
  turns = [];
  next("Ask both models", "");
});

for (const button of $("ballot").children) button.addEventListener("click", () => vote(button.dataset.winner));

// ---------------------------------------------------------------- the composer, keys, the download

$("message").addEventListener("input", fit);
function fit() {
  const field = $("message");
  field.style.height = "auto";
  field.style.height = `${Math.min(field.scrollHeight, window.innerHeight * 0.4)}px`;
}
$("message").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    ask();
  }
});
$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  ask();
});
$("stop").addEventListener("click", () => controller?.abort());
$("open-sampling").addEventListener("click", () => $("sampling").showModal());

document.addEventListener("keydown", (event) => {
  if (!isForPage(event) || event.altKey || event.ctrlKey || event.metaKey || event.repeat) return;
  const key = event.key.toLowerCase();
  if (key === "escape" && state === "answering") controller.abort();
  else if (key in KEYS && state === "voting") vote(KEYS[key]);
  else if (key === "/" && state === "asking") $("message").focus();
  else if (key === "?") $("shortcuts").showModal();
  else return;
  event.preventDefault();
});

// A link cannot send the API key: with one, the file comes by script.
$("download").addEventListener("click", async (event) => {
  event.preventDefault();
  const content = await (await request("/feedback/preferences.jsonl")).blob();
  const link = make("a");
  link.href = URL.createObjectURL(content);
  link.download = "preferences.jsonl";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
});

show("asking");
