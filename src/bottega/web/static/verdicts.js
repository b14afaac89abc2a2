// Telling the web app what a person did with an answer: thumbs, copied, corrected, asked again.

import { request } from "./api.js";

// Whether it was kept. `conversation` holds `message`; `more` are further fields of the row.
export async function keepVerdict(conversation, message, verdict, more = {}) {
  const index = conversation.messages.indexOf(message);
  const before = conversation.messages.slice(0, index).map(({ role, content }) => ({ role, content }));
  const messages = message.system ? [{ role: "system", content: message.system }, ...before] : before;
  const answer = message.original ?? message.content; // a correction is not the model's
  const row = { conversation: conversation.id, index, model: message.model, messages, answer, verdict, ...more };
  try {
    await request("/feedback/verdicts", row);
    return true;
  } catch {
    return false; // what a person does goes on without it
  }
}
