// What the votes and verdicts say: ratings with intervals, the latest votes, rates of answers.

import { $, make } from "./frame.js";

const FIRST = 6; // votes that are shown at once
const WORDS = { tie: "tie", both_bad: "both bad" };
const percent = (share) => `${Math.round(100 * share)} %`;
const rounded = (value, open) => (value === null ? open : String(Math.round(value)).replace("-", "−"));
const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;

export function showResults(results) {
  showRatings(results);
  showHistory(results);
  showRates(results.answers);
}

// A name, a scale with a point (or a bar from the left) and an interval, and the same in words.
// Positions are shares of the scale; null is an open end, or no point.
function gauge(name, { at, low, high, bar = false }, words) {
  const scale = make("span", bar ? "scale bar" : "scale");
  scale.setAttribute("aria-hidden", "true");
  const interval = make("span", "interval");
  interval.classList.toggle("open-low", low === null);
  interval.classList.toggle("open-high", high === null);
  scale.style.setProperty("--low", low ?? 0);
  scale.style.setProperty("--high", high ?? 1);
  if (at !== null) {
    scale.style.setProperty("--at", at);
    scale.append(make("span", "point"));
  }
  scale.append(interval);
  const node = make("li");
  node.append(make("span", "name", name), scale, make("span", "words", words));
  return node;
}

function showRatings({ votes, needed, ratings, unrated }) {
  const list = $("ratings");
  list.replaceChildren();
  if (!ratings) {
    $("ratings-note").textContent = needed
      ? `Shown after ${plural(votes + needed, "vote")}: fewer say next to nothing. ${plural(needed, "vote")} to go.`
      : unrated;
    return;
  }
  const ends = ratings.models.flatMap((row) => [row.rating, row.low, row.high]).filter((value) => value !== null);
  const first = Math.min(...ends) - 40;
  const last = Math.max(...ends) + 40;
  const place = (value) => (value === null ? null : (value - first) / (last - first));
  for (const row of ratings.models) {
    const value = row.rating === null ? "not rated" : rounded(row.rating);
    const words = `${value} [${rounded(row.low, "−∞")}, ${rounded(row.high, "∞")}] · ${plural(row.votes, "vote")}`;
    list.append(gauge(row.model, { at: place(row.rating), low: place(row.low), high: place(row.high) }, words));
  }
  $("ratings-note").textContent = `Bradley–Terry from ${plural(ratings.votes, "vote")}, mean 1000, with 95 % intervals. ${firstOver(ratings.models)}`;
}

// Whether the first model is shown to be better than the second.
function firstOver([first, second]) {
  const gap = first.over_next;
  if (!gap) return "";
  const size = gap.value === null ? "" : ` by ${rounded(gap.value)} points [${rounded(gap.low, "−∞")}, ${rounded(gap.high, "∞")}]`;
  return gap.shown ? `${first.model} is better than ${second.model}${size}.` : `No difference shown between ${first.model} and ${second.model}.`;
}

function showHistory({ votes, recent }) {
  $("history-note").textContent = votes === 0 ? "None yet." : votes > recent.length ? `The latest ${recent.length} of ${votes}.` : "";
  $("download").hidden = votes === 0;
  const rows = recent.map(historyRow);
  for (const row of rows.slice(FIRST)) row.hidden = true;
  $("history").replaceChildren(...rows);
  $("more").hidden = rows.length <= FIRST;
}

$("more").addEventListener("click", () => {
  const rest = [...$("history").children].filter((row) => row.hidden);
  for (const row of rest) row.hidden = false;
  $("more").hidden = true;
  rest[0].querySelector("summary").focus();
});

function historyRow({ prompt, left, right, winner }) {
  const node = make("li");
  const details = make("details");
  const summary = make("summary");
  const outcome = winner === "a" ? `${left.model} over ${right.model}` : winner === "b" ? `${right.model} over ${left.model}` : `${left.model}, ${right.model}: ${WORDS[winner]}`;
  summary.append(make("span", "asked", prompt), make("span", "outcome", outcome));
  const both = make("div", "both");
  for (const one of [left, right]) {
    const part = make("div");
    part.append(make("h3", "who", one.model), make("p", "said", one.answer));
    both.append(part);
  }
  details.append(summary, both);
  node.append(details);
  return node;
}

function showRates(models) {
  $("answers-note").textContent = models.length
    ? "Used: copied, or corrected and kept, rather than asked for again. Each share is of the answers that had such a sign, with Wilson’s 95 % interval."
    : "Nothing yet. Thumbs, copies, corrections and new attempts on the chat page are counted here.";
  $("rates").replaceChildren(
    ...models.flatMap(({ model, accepted, thumbs }) => [rate(`${model}, used`, accepted), rate(`${model}, thumbs up`, thumbs)]),
  );
}

function rate(name, share) {
  if (!share) return gauge(name, { at: null, low: null, high: null }, "no answers");
  const words = `${percent(share.value)} [${percent(share.low)}, ${percent(share.high)}] · ${share.successes} of ${share.count}`;
  return gauge(name, { at: share.value, low: share.low, high: share.high, bar: true }, words);
}
