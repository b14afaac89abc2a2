// Exporting a conversation: the messages as JSON, or as a Markdown document.

import { title } from "./store.js";

const fileName = (conversation, ending) => {
  const words = title(conversation).toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "");
  return `${words.slice(0, 40) || "conversation"}.${ending}`;
};

function save(name, type, content) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

const withSystem = (conversation, system) => {
  const messages = conversation.messages.map(({ role, content }) => ({ role, content }));
  return system ? [{ role: "system", content: system }, ...messages] : messages;
};

export function exportJson(conversation, { model, system }) {
  const data = { model, created: new Date(conversation.created).toISOString(), messages: withSystem(conversation, system) };
  save(fileName(conversation, "json"), "application/json", `${JSON.stringify(data, null, 2)}\n`);
}

export function exportMarkdown(conversation, { model, system }) {
  const names = { system: "System", user: "You", assistant: model };
  const parts = withSystem(conversation, system).map(({ role, content }) => `## ${names[role]}\n\n${content}\n`);
  save(fileName(conversation, "md"), "text/markdown", `# ${title(conversation)}\n\n${parts.join("\n")}`);
}
