// A running lab: its events come one by one, and again from the last one after a lost connection.

const NAMESPACE = "http://www.w3.org/2000/svg";

export function follow(run) {
  const state = document.querySelector("#run-state");
  const progress = document.querySelector("#run-progress");
  const says = document.querySelector("#run-says");
  const charts = new Map();
  const source = new EventSource(`/labs/${run.dataset.run}/events?after=${run.dataset.replay ?? 0}`);
  source.onmessage = (message) => {
    const event = JSON.parse(message.data);
    if (event.event === "step") {
      progress.max = event.total;
      progress.value = event.done;
      state.textContent = `Running: ${event.done} of ${event.total}${event.note ? `, ${event.note}` : ""}`;
    } else if (event.event === "say" && message.lastEventId > run.dataset.after) {
      const line = document.createElement("li");
      line.textContent = event.text;
      says.append(line);
    } else if (event.event === "axes") {
      charts.set(event.chart, new LiveChart(event, document.querySelector("#run-figures")));
    } else if (event.event === "point") {
      charts.get(event.chart)?.add(event);
    } else if (event.event === "end") {
      source.close();
      location.reload(); // the page of a finished run has its charts with axes and tables
    }
  };
}

class LiveChart {
  constructor(axes, place) {
    this.axes = axes;
    this.points = new Map();
    this.figure = document.createElement("figure");
    const caption = document.createElement("figcaption");
    caption.textContent = axes.title;
    this.svg = document.createElementNS(NAMESPACE, "svg");
    this.svg.setAttribute("viewBox", "0 0 720 240");
    this.svg.setAttribute("role", "img");
    this.svg.setAttribute("aria-label", `${axes.title}, as it grows`);
    this.note = document.createElement("p");
    this.note.className = "note";
    this.figure.append(caption, this.svg, this.note);
    place.replaceChildren(this.figure);
  }

  add({ series, x, y }) {
    if (!this.points.has(series)) this.points.set(series, []);
    this.points.get(series).push([x, y]);
    this.note.textContent = `${this.axes.x_label} ${x}: ${y.toPrecision(4)} ${this.axes.y_label}`;
    this.draw();
  }

  draw() {
    const all = [...this.points.values()].flat();
    const floors = Object.values(this.axes.floors);
    const xs = all.map((point) => point[0]);
    const ys = [...all.map((point) => point[1]), ...floors];
    const [left, right] = [Math.min(...xs), Math.max(...xs, Math.min(...xs) + 1)];
    const [low, high] = [Math.min(...ys), Math.max(...ys)];
    const place = ([x, y]) =>
      `${(10 + (700 * (x - left)) / (right - left)).toFixed(1)} ${(225 - (210 * (y - low)) / (high - low || 1)).toFixed(1)}`;
    const lines = floors.map((y) => ["line base", [[left, y], [right, y]]]);
    [...this.points.values()].forEach((points, index) => lines.push([`line c${index}`, points]));
    this.svg.replaceChildren(
      ...lines.map(([kind, points]) => {
        const line = document.createElementNS(NAMESPACE, "polyline");
        line.setAttribute("class", kind);
        line.setAttribute("points", points.map(place).join(" "));
        return line;
      }),
    );
  }
}
