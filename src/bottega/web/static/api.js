// Talking to /v1: plain requests, and answers as they stream in.

import { apiKey } from "./store.js";

const TOP = 5;

// What can be done about an error, by the code that the server sends.
const ADVICE = {
  context_length_exceeded: "Start a new conversation, or edit an earlier message to make it shorter.",
  queue_full: "Other answers are being generated. Wait a moment, then try again.",
  model_not_ready: "This page goes on by itself as soon as the model is there.",
  model_stopped: "What came so far is kept. Try again once the model is back.",
  invalid_api_key: "Enter the key with which the server was started.",
  no_chat_template: "Reload the page.",
};

export class Failure extends Error {
  constructor(message, { status = 0, code = "", param = "" } = {}) {
    super(message);
    this.status = status;
    this.code = code;
    this.param = param;
  }

  get advice() {
    if (this.code === "" && this.status === 0) return "Is `bottega web` still running? Look at its terminal.";
    if (this.code === "invalid_value" && this.param) return `Change ${this.param} in the settings.`;
    return ADVICE[this.code] ?? (this.status >= 500 ? "The terminal of `bottega web` says more." : "");
  }
}

function failureFrom(status, body) {
  const error = body?.error ?? {};
  return new Failure(error.message ?? `The server answered with status ${status}.`, {
    status,
    code: error.code ?? "",
    param: error.param ?? "",
  });
}

export async function request(path, body, signal) {
  const headers = { "Content-Type": "application/json" };
  if (apiKey()) headers.Authorization = `Bearer ${apiKey()}`;
  let response;
  try {
    const options = body === undefined ? {} : { method: "POST", body: JSON.stringify(body) };
    response = await fetch(path, { headers, signal, ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure("The server cannot be reached.");
  }
  if (!response.ok) throw failureFrom(response.status, await response.json().catch(() => null));
  return response;
}

export async function getModels() {
  return (await (await request("/v1/models")).json()).data;
}

export async function renderPrompt(body) {
  return (await request("/v1/render", body)).json();
}

const brokenOff = () => new Failure("The answer broke off.", { status: 502, code: "model_stopped" });

// The data of each server-sent event of a response.
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    const { value, done } = await reader.read().catch((error) => {
      if (error.name === "AbortError") throw error;
      throw brokenOff();
    });
    if (done) return;
    buffer += value;
    const blocks = buffer.split("\n\n");
    buffer = blocks.pop();
    for (const block of blocks) {
      const line = block.split("\n").find((one) => one.startsWith("data: "));
      if (line) yield line.slice(6);
    }
  }
}

const rounded = (logprob) => Math.round(Math.exp(logprob) * 1e5) / 1e5;

// Tokens of one chunk as {text, p, top: [[text, p], …]}; `decoder` joins bytes of split characters.
function chatTokens(logprobs, decoder) {
  return (logprobs?.content ?? []).map((token) => ({
    text: decoder.decode(Uint8Array.from(token.bytes ?? []), { stream: true }),
    name: token.token,
    p: rounded(token.logprob),
    top: token.top_logprobs.map((one) => [one.token, rounded(one.logprob)]),
  }));
}

function completionTokens(logprobs) {
  return (logprobs?.tokens ?? []).map((text, index) => ({
    text,
    name: text,
    p: rounded(logprobs.token_logprobs[index]),
    top: Object.entries(logprobs.top_logprobs[index] ?? {}).map(([other, logprob]) => [other, rounded(logprob)]),
  }));
}

// Yields {text, tokens, finish, usage} until the answer ends. `chat` false continues a plain text.
export async function* streamAnswer({ model, chat, messages, sampling, signal }) {
  const common = { model, ...sampling, stream: true, stream_options: { include_usage: true } };
  const response = chat
    ? await request("/v1/chat/completions", { ...common, messages, logprobs: true, top_logprobs: TOP }, signal)
    : await request(
        "/v1/completions",
        { max_tokens: 256, ...common, prompt: messages.map((one) => one.content).join(""), logprobs: TOP },
        signal,
      );
  const decoder = new TextDecoder();
  for await (const data of events(response)) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw failureFrom(502, chunk);
    const choice = chunk.choices[0];
    yield {
      text: (chat ? choice?.delta?.content : choice?.text) ?? "",
      tokens: chat ? chatTokens(choice?.logprobs, decoder) : completionTokens(choice?.logprobs),
      finish: choice?.finish_reason ?? null,
      usage: chunk.usage ?? null,
    };
  }
  throw brokenOff();
}
