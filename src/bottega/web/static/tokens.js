// Tokens with their probabilities: one focusable span each, and one popover for all of them.
// A group of tokens is a single tab stop; the arrow keys move inside it.

const popover = document.getElementById("popover");
let shown = null;

const percent = (p) => (p >= 0.9995 ? "100 %" : p >= 0.0995 ? `${Math.round(p * 100)} %` : p >= 0.0005 ? `${(p * 100).toFixed(1)} %` : "< 0.1 %");
const visible = (text) => text.replaceAll(" ", "·").replaceAll("\n", "↵").replaceAll("\t", "→") || "∅";
const level = (p) => (p >= 0.9 ? 0 : p >= 0.5 ? 1 : p >= 0.2 ? 2 : 3);

function make(name, className, text) {
  const node = document.createElement(name);
  node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

// The span of one token; `token` is {text, name, p, top}.
export function tokenSpan(token) {
  const span = make("span", `token unsure-${level(token.p)}`, token.text || "▫");
  if (!token.text) span.classList.add("part");
  span.tabIndex = -1;
  span.setAttribute("role", "button");
  span.setAttribute("aria-label", `${visible(token.text || token.name)}, ${percent(token.p)}`);
  span.token = token;
  return span;
}

// Makes `container` a group of tokens: roving tab stop, arrow keys, hover, click.
export function tokenGroup(container) {
  container.setAttribute("role", "group");
  container.setAttribute("aria-label", "Tokens of the answer; the arrow keys move between them");
  container.addEventListener("focusin", (event) => show(event.target));
  container.addEventListener("focusout", hide);
  container.addEventListener("pointerover", (event) => show(event.target));
  container.addEventListener("pointerout", (event) => {
    if (event.target !== document.activeElement) hide();
  });
  container.addEventListener("keydown", (event) => move(container, event));
}

// The group's one tab stop is its first token until another has been focused.
export function keepTabStop(container) {
  if (!container.querySelector('.token[tabindex="0"]') && container.firstElementChild) {
    container.firstElementChild.tabIndex = 0;
  }
}

function move(container, event) {
  const from = event.target;
  if (!from.classList.contains("token")) return;
  const to = target(container, from, event.key);
  if (event.key === "Escape" && shown) {
    hide();
    event.stopPropagation();
  }
  if (!to) return;
  event.preventDefault();
  for (const stop of container.querySelectorAll('.token[tabindex="0"]')) stop.tabIndex = -1;
  to.tabIndex = 0;
  to.focus();
}

function target(container, from, key) {
  switch (key) {
    case "ArrowRight":
      return from.nextElementSibling;
    case "ArrowLeft":
      return from.previousElementSibling;
    case "Home":
      return container.firstElementChild;
    case "End":
      return container.lastElementChild;
    case "ArrowDown":
      return inLine(from, "nextElementSibling", 1);
    case "ArrowUp":
      return inLine(from, "previousElementSibling", -1);
    default:
      return null;
  }
}

// The token nearest to `from` in the line above (-1) or below (1).
function inLine(from, step, direction) {
  const start = from.getBoundingClientRect();
  let best = null;
  let bestDistance = Infinity;
  let line = null;
  for (let other = from[step]; other; other = other[step]) {
    const box = other.getBoundingClientRect();
    if ((box.top - start.top) * direction < start.height / 2) continue;
    line ??= box.top;
    if (Math.abs(box.top - line) > box.height / 2) break;
    const distance = Math.abs(box.left - start.left);
    if (distance < bestDistance) [best, bestDistance] = [other, distance];
  }
  return best;
}

function show(span) {
  if (!span.token) return;
  hide();
  shown = span;
  fill(span.token);
  popover.hidden = false;
  span.setAttribute("aria-describedby", "popover");
  place(span);
}

export function hide() {
  shown?.removeAttribute("aria-describedby");
  shown = null;
  popover.hidden = true;
}

function fill(token) {
  const known = token.top.some(([text]) => text === token.name);
  const rows = known ? token.top : [...token.top, [token.name, token.p]];
  const head = make("p", "popover-head");
  head.append(make("code", "", visible(token.name)), make("strong", "", percent(token.p)));
  const list = make("ol", "alternatives");
  for (const [text, p] of rows) {
    const row = make("li", text === token.name ? "chosen" : "");
    const bar = make("span", "bar");
    bar.style.setProperty("--p", p);
    row.append(make("code", "", visible(text)), bar, make("span", "percent", percent(p)));
    list.append(row);
  }
  popover.replaceChildren(head, list);
}

function place(span) {
  const box = span.getClientRects()[0] ?? span.getBoundingClientRect();
  const { offsetWidth: width, offsetHeight: height } = popover;
  const left = Math.min(Math.max(box.left, 8), window.innerWidth - width - 8);
  const above = box.top - height - 8;
  popover.style.left = `${left}px`;
  popover.style.top = `${above >= 8 ? above : box.bottom + 8}px`;
}

const follow = () => shown && (shown.isConnected ? place(shown) : hide());
new ResizeObserver(follow).observe(document.getElementById("messages"));
window.addEventListener("scroll", follow, { passive: true, capture: true });
