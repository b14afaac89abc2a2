// A small part of Markdown as DOM nodes: paragraphs, headings, lists, code, emphasis.
// It builds elements and never parses HTML, so a model cannot put markup into the page.

const INLINE = /(`+)([^`](?:.*?[^`])?)\1(?!`)|\*\*(?=\S)(.+?)(?<=\S)\*\*|(?<![\w*])\*(?=[^\s*])([^*]+?)(?<=\S)\*(?![\w*])/s;

function element(name, content) {
  const node = document.createElement(name);
  if (content !== undefined) node.textContent = content;
  return node;
}

function addInline(parent, text) {
  let rest = text;
  for (;;) {
    const match = INLINE.exec(rest);
    if (!match) break;
    parent.append(rest.slice(0, match.index));
    if (match[2] !== undefined) {
      parent.append(element("code", match[2]));
    } else {
      const strong = match[3] !== undefined;
      const node = element(strong ? "strong" : "em");
      addInline(node, strong ? match[3] : match[4]);
      parent.append(node);
    }
    rest = rest.slice(match.index + match[0].length);
  }
  parent.append(rest);
}

function codeBlock(lines, start, fence) {
  let end = start + 1;
  while (end < lines.length && !lines[end].trimStart().startsWith(fence)) end += 1;
  const block = element("pre");
  block.tabIndex = 0;
  block.append(element("code", lines.slice(start + 1, end).join("\n")));
  return [block, end + 1];
}

const BULLET = /^\s*[-*+]\s+/;
const NUMBER = /^\s*\d+[.)]\s+/;

function list(lines, start, marker, name) {
  const node = element(name);
  let at = start;
  for (; at < lines.length && marker.test(lines[at]); at += 1) {
    const item = element("li");
    addInline(item, lines[at].replace(marker, ""));
    node.append(item);
  }
  return [node, at];
}

const isBlockStart = (line) => /^(`{3,}|~{3,}|#{1,6}\s)/.test(line.trimStart()) || BULLET.test(line) || NUMBER.test(line);

// The nodes of `text`.
export function markdown(text) {
  const lines = text.split("\n");
  const nodes = [];
  let at = 0;
  while (at < lines.length) {
    const line = lines[at];
    const fence = /^(`{3,}|~{3,})/.exec(line.trimStart());
    const heading = /^(#{1,6})\s+(.*)/.exec(line);
    let node;
    if (fence) {
      [node, at] = codeBlock(lines, at, fence[1]);
    } else if (BULLET.test(line)) {
      [node, at] = list(lines, at, BULLET, "ul");
    } else if (NUMBER.test(line)) {
      [node, at] = list(lines, at, NUMBER, "ol");
    } else if (heading) {
      node = element("h4");
      addInline(node, heading[2]);
      at += 1;
    } else if (line.trim() === "") {
      at += 1;
      continue;
    } else {
      const start = at;
      do at += 1;
      while (at < lines.length && lines[at].trim() !== "" && !isBlockStart(lines[at]));
      node = element("p");
      addInline(node, lines.slice(start, at).join("\n"));
    }
    nodes.push(node);
  }
  return nodes;
}
